import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from underone.data import check_images, to_model_range, to_uint8

LEVELS = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)


def test_all_256_levels_round_trip_exactly() -> None:
    assert torch.equal(to_uint8(to_model_range(LEVELS)), LEVELS)


def test_the_range_is_exactly_minus_one_to_one() -> None:
    values = to_model_range(LEVELS)
    assert values.dtype == torch.float32
    assert (values.min().item(), values.max().item()) == (-1.0, 1.0)
    assert values.flatten()[51].item() == pytest.approx(51 / 127.5 - 1, abs=1e-7)


@settings(deadline=None)
@given(st.floats(allow_nan=False, width=32))
def test_every_number_goes_to_the_nearest_level(value: float) -> None:
    level = to_uint8(torch.full((1, 1, 1, 1), value)).item()
    clamped = min(max(value, -1.0), 1.0)
    assert abs((clamped + 1) * 127.5 - level) <= 0.5 + 1e-4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_floating_type_is_rounded_alike(dtype: torch.dtype) -> None:
    values = to_model_range(LEVELS).to(dtype)
    assert torch.equal(to_uint8(values), to_uint8(values.to(torch.float32)))


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        to_model_range(LEVELS.float())
    with pytest.raises(ValueError, match="N, C, H, W"):
        to_model_range(LEVELS[0])
    with pytest.raises(ValueError, match="floating"):
        to_uint8(LEVELS)
    with pytest.raises(ValueError, match="N, C, H, W"):
        to_uint8(torch.zeros(1, 28, 28))
    with pytest.raises(ValueError, match="NaN"):
        to_uint8(torch.tensor([0.0, float("nan")]).reshape(1, 1, 1, 2))


@pytest.mark.parametrize("shape", [(2, 28, 28), (2, 28, 28, 3), (2, 2, 8, 8), (2, 4, 8, 8)])
def test_only_nchw_of_one_or_three_channels_passes(shape: tuple[int, ...]) -> None:
    check_images(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
    check_images(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match="N, C, H, W"):
        check_images(torch.zeros(shape, dtype=torch.uint8))
