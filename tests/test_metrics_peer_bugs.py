"""What other packages get wrong, each beside the right value here: were one cured, it would show.

Faults of FID in its arithmetic are in test_metrics_frechet_peers.py, and those of one metric alone
among its own tests; here are the rest.
"""

import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import scipy.linalg
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import peers
from helpers import float64, normal
from peer_frechet import Identity, Peer, clean_fid, pytorch_fid, torch_fidelity
from underone.data import Dataset, SampleSet, read_samples
from underone.errors import UserError
from underone.metrics import (
    Features,
    Gaussian,
    Moments,
    Yardstick,
    build_reference,
    frechet_distance,
    load_reference,
    measure,
    save_reference,
)
from underone.metrics.inception import inception_score
from underone.metrics.kernel import kernel_distance
from underone.metrics.manifold import manifold_scores
from underone.metrics.memorisation import data_copying, mann_whitney_z, memorisation

pytestmark = [
    pytest.mark.filterwarnings("ignore:Metric .* will save all extracted features"),
    pytest.mark.filterwarnings("ignore:Matrix is singular"),
]

CROSS = float64([[1, 0], [-1, 0], [0, 1], [0, -1]])


def ours(x: Tensor, y: Tensor) -> float:
    return frechet_distance(Gaussian.of_features(x), Gaussian.of_features(y))


takers_of_square_roots = pytest.mark.parametrize(
    "peer", [clean_fid, pytorch_fid], ids=lambda peer: peer.__name__
)


# FID


@takers_of_square_roots
def test_the_newest_scipy_changes_nothing_here_and_stops_others(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = 2 * CROSS + float64([3, 4]), CROSS
    assert peer(x, y) == pytest.approx(79 / 3)
    older = scipy.linalg.sqrtm

    def newest(a: Any) -> Any:
        """As SciPy 1.18 has it: without `disp`."""
        return older(a)

    monkeypatch.setattr(scipy.linalg, "sqrtm", newest)
    assert ours(x, y) == pytest.approx(79 / 3, rel=1e-12)
    with pytest.raises(TypeError, match="disp"):
        peer(x, y)


@takers_of_square_roots
def test_few_features_of_large_scale_are_real_here_and_imaginary_in_others(peer: Peer) -> None:
    x, y = normal(40, 96), 0.5 * normal(50, 96, seed=1)
    # FID is of the second degree in the scale, which others hold against a fixed 1e-3.
    expected = 1e12 * ours(x, y)
    assert peer(x, y) == pytest.approx(1e-12 * expected, rel=1e-6)
    assert ours(1e6 * x, 1e6 * y) == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="Imaginary component"):
        peer(1e6 * x, 1e6 * y)


def test_a_float32_mean_over_many_samples_drifts_in_clean_fid() -> None:
    constant, origin = torch.full((500_000, 2), 0.1), torch.zeros(2, 2)
    truth = 2 * 0.1**2
    assert ours(constant, origin) == pytest.approx(truth, rel=1e-6)
    # Their mean is 0.100354.
    assert clean_fid(constant, origin) == pytest.approx(2 * 0.100354**2, rel=1e-4)
    assert clean_fid(constant, origin) - truth > 1e-4


def test_float64_is_float64_here_and_float32_in_torch_fidelity() -> None:
    # At 1e4 a unit in float32's last place is 1e-3: the cross is lost between two of them.
    x, y = 1e4 + 2e-4 * CROSS, 1e4 + 1e-4 * CROSS
    dtype = peers.import_torch_fidelity().helpers.text_to_dtype("float64")
    assert dtype == torch.float32
    # Each dimension's standard deviation goes from 1e-4 to 2e-4 times sqrt(2 / 3).
    assert ours(x, y) == pytest.approx(2 * 2 / 3 * 1e-8, rel=1e-6)
    assert torch_fidelity(x.to(dtype), y.to(dtype)) == 0


def test_one_dimension_works_here_and_not_in_pytorch_fid() -> None:
    x, y = float64([[0], [1]]), float64([[0], [3]])
    assert ours(x, y) == pytest.approx(3, rel=1e-15)
    with pytest.raises(ValueError, match="not enough values to unpack"):
        pytorch_fid(x, y)


# Precision and recall


def test_distances_in_half_precision_make_neighbours_of_strangers() -> None:
    # As ADM's evaluator has it: squared distances in float16, wherever they are finite.
    def in_half(points: Tensor, centres: Tensor) -> float:
        def squared(a: Tensor, b: Tensor) -> Tensor:
            a, b = a.half(), b.half()
            norms = a.square().sum(1)[:, None] + b.square().sum(1)
            return (norms - 2 * (a @ b.T)).clamp(min=0)

        radii = squared(centres, centres).kthvalue(4).values
        return float((squared(points, centres) <= radii).any(1).double().mean())

    real, fake = (5 + 0.1 * normal(150, 64, seed=seed) for seed in (0, 1))
    exact = (fake[:, None] - real).square().sum(2)
    radii = (real[:, None] - real).square().sum(2).kthvalue(4).values
    expected = float((exact <= radii).any(1).double().mean())
    scores = manifold_scores(real=real, fake=fake, neighbours=3, strict=False)
    assert scores.precision == expected
    assert in_half(fake, real) - expected > 0.1


def test_fakes_and_reals_are_told_apart_as_in_torch_fidelity_since_they_were_exchanged() -> None:
    # Releases before 0.4.0 had precision for recall; one value each way is of no doubt.
    real, fake = float64([[0], [1], [2], [3]]), float64([[0.5], [10], [11], [12]])
    ours = manifold_scores(real=real, fake=fake, neighbours=1, strict=False)
    assert (ours.precision, ours.recall) == (0.25, 1)
    theirs = peers.import_torch_fidelity().metric_prc.prc_features_to_metric(
        fake, real, prc_neighborhood=1, verbose=False
    )
    assert (theirs["precision"], theirs["recall"]) == (0.25, 1)


def test_nothing_is_printed_here_and_sizes_by_prdc(capsys: pytest.CaptureFixture[str]) -> None:
    real, fake = normal(20, 2), normal(15, 2, seed=1)
    scores = manifold_scores(real=real, fake=fake, neighbours=3, strict=True)
    assert capsys.readouterr().out == ""
    theirs = peers.import_prdc().compute_prdc(real.numpy(), fake.numpy(), nearest_k=3)
    assert scores.__dict__ == pytest.approx(theirs, rel=1e-12)
    assert capsys.readouterr().out == "Num real: 20 Num fake: 15\n"


# Memorisation


def test_collapse_onto_one_training_image_is_copying_here_and_none_to_torchmetrics() -> None:
    train, test = normal(300, 64), normal(200, 64, seed=1)
    collapsed = train[:1] + 1e-3 * normal(200, 64, seed=2)

    def mifid(real: Tensor, fake: Tensor) -> float:
        package = peers.import_torchmetrics().image.mifid
        metric = package.MemorizationInformedFrechetInceptionDistance(feature=Identity(64))
        metric.update(real, real=True)
        metric.update(fake, real=False)
        return float(metric.compute())

    result = memorisation(train=train, test=test, generated=collapsed)
    assert result.memorised_share.generated == 1
    assert result.authentic_percent.generated == 0
    assert result.memorised_share.held_out < 0.01
    # They average over the real images what the paper averages over the generated ones: most real
    # images are far from the one copied, and so no penalty is applied at all. With the two sets
    # exchanged it is that of the paper, 1 / m with m < 1e-5.
    distance = ours(collapsed, train)
    assert mifid(real=train, fake=collapsed) == pytest.approx(distance, rel=1e-6)
    assert mifid(real=collapsed, fake=train) > 1e5 * distance


def test_of_distances_z_is_a_number_here_and_an_array_of_one_where_they_are_a_column() -> None:
    generated, test = float64([0.1, 0.2, 0.3]), float64([1, 2, 3])
    assert mann_whitney_z(generated, test) == pytest.approx(-4 / math.sqrt(5.25), rel=1e-15)
    # The original of C_T hands columns to scipy, and numpy 2.4 takes what comes back for no number.
    columns = (generated[:, None].numpy(), test[:, None].numpy())
    u = scipy.stats.mannwhitneyu(*columns, alternative="less").statistic
    assert u.shape == (1,)
    assert u == 0


def test_a_cell_counts_by_what_was_generated_in_it_not_by_its_test_samples() -> None:
    # Cell 0 has three generated samples and one test, cell 1 the other way round.
    generated, generated_cells = float64([0.1, 0.2, 0.3, 9]), torch.tensor([0, 0, 0, 1])
    test, test_cells = float64([1, 2, 3, 4]), torch.tensor([0, 1, 1, 1])
    first = mann_whitney_z(generated[:3], test[:1])
    second = mann_whitney_z(generated[3:], test[1:])
    kept = data_copying(generated, test, generated_cells, test_cells, least=2)
    assert kept == pytest.approx(first, rel=1e-15)
    # Counted by test samples, as dgm-eval does, it would be the other one: no copy to be seen.
    assert first < -0.5 < 0.5 < second


# Files


def images(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 1, 8, 8), generator=generator).to(torch.uint8)


def test_files_of_any_case_are_measured_here_and_passed_over_by_pytorch_fid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = images(6, 0)
    SampleSet(every).save_png_folder(tmp_path / "a")
    for path in sorted((tmp_path / "a").glob("*.png"))[3:]:
        path.rename(path.with_suffix(".PNG"))
    assert torch.equal(read_samples(tmp_path / "a").images, every)
    score = peers.import_pytorch_fid().fid_score
    monkeypatch.setattr(score, "calculate_activation_statistics", lambda files, *_: (files, None))
    found, _ = score.compute_statistics_of_path(str(tmp_path / "a"), None, 1, 1, "cpu")
    assert [path.name for path in found] == ["00000.png", "00001.png", "00002.png"]


def test_a_subset_is_the_first_by_name_here_and_any_in_a_zip_for_clean_fid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = images(60, 1)
    SampleSet(every).save_png_folder(tmp_path / "a")
    assert torch.equal(read_samples(tmp_path / "a").images[:30], every[:30])
    names = sorted(path.name for path in (tmp_path / "a").glob("*.png"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.write(tmp_path / "a" / name, name)
    fid = peers.import_cleanfid().fid
    monkeypatch.setattr(fid, "get_files_features", lambda files, *_, **__: files)
    found = fid.get_folder_features(str(tmp_path / "a.zip"), num=30, verbose=False)
    # The order is that of a set of strings, which changes with each process.
    assert found != names[:30]
    assert len(set(found)) == 30


def test_a_reference_is_found_by_its_own_name_here_and_not_by_clean_fid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = Dataset("small", "train", images(20, 2), torch.arange(20) % 2, ("a", "b"))
    reference = build_reference("MyFaces", data, None, Scaled())
    save_reference(reference, tmp_path / "MyFaces.npz")
    assert load_reference(tmp_path / "MyFaces.npz").name == "MyFaces"

    package = peers.import_cleanfid()
    # Their files go beside the package, and one that is made in two spellings differs from neither.
    monkeypatch.setattr(package, "__file__", str(tmp_path / "__init__.py"))
    monkeypatch.setattr(package.fid, "build_feature_extractor", lambda *_: None)
    monkeypatch.setattr(package.fid, "get_folder_features", lambda *_, **__: normal(20, 2).numpy())
    package.fid.make_custom_stats("MyFaces", "anywhere", device="cpu", verbose=False)
    assert [path.name for path in sorted((tmp_path / "stats").iterdir())] == [
        "myfaces_clean_custom_na.npz",
        "myfaces_clean_custom_na_kid.npz",
    ]
    assert not package.fid.test_stats_exists("MyFaces", "clean")


# Extractors


@dataclass(frozen=True)
class Scaled:
    """The means of the rows' grey levels, times the one weight there is."""

    weight: float = 1.0
    name: str = "rows"
    revision: int | None = None

    @property
    def sha256(self) -> str:
        return f"{self.weight}".ljust(64, "0")

    def __call__(self, images: Tensor) -> Features:
        return Features(self.weight * images.float().mean(dim=(1, 3)) / 255)


def as_torch_fidelity(extractor: Callable[[], Scaled]) -> type:
    """The class that torch-fidelity asks for features "feat"; `extractor` is asked at each call."""
    return type(
        "Rows",
        (peers.import_torch_fidelity().FeatureExtractorBase,),
        {
            "__init__": lambda self, name, layers, **_: super(type(self), self).__init__(
                name, layers
            ),
            "get_provided_features_list": staticmethod(lambda: ("feat",)),
            "get_default_feature_layer_for_metric": staticmethod(lambda metric: "feat"),
            "can_be_compiled": staticmethod(lambda: False),
            "forward": lambda self, batch: (extractor()(batch).values.double(),),
        },
    )


class Stored(torch.utils.data.Dataset[Tensor]):
    """Images for torch-fidelity, one at a time."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def test_other_weights_of_the_same_name_are_refused_here_and_taken_for_the_old_by_torch_fidelity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = peers.import_torch_fidelity()
    current = Scaled(1)
    monkeypatch.setitem(
        package.registry.FEATURE_EXTRACTORS_REGISTRY, "rows", as_torch_fidelity(lambda: current)
    )
    generated, real = images(60, 3) // 2, images(60, 4)

    def theirs(cache: bool) -> float:
        result = package.calculate_metrics(
            input1=Stored(generated),
            input2=Stored(real),
            input1_cache_name="generated",
            input2_cache_name="real",
            feature_extractor="rows",
            fid=True,
            cuda=False,
            cache=cache,
            cache_root=str(tmp_path),
            save_cpu_ram=True,
            verbose=False,
        )
        return float(result["frechet_inception_distance"])

    data = Dataset("small", "train", real, torch.arange(60) % 2, ("a", "b"))
    before = Yardstick(current, build_reference("rows", data, None, current))
    right = measure(SampleSet(generated), before).fid
    assert theirs(cache=True) == pytest.approx(right, rel=1e-5)

    current = Scaled(2)
    with pytest.raises(UserError, match="another extractor"):
        Yardstick(current, before.reference)
    after = Yardstick(current, build_reference("rows", data, None, current))
    assert measure(SampleSet(generated), after).fid == pytest.approx(4 * right, rel=1e-5)
    assert theirs(cache=False) == pytest.approx(4 * right, rel=1e-5)
    assert theirs(cache=True) == pytest.approx(right, rel=1e-5)


class Conditional(nn.Module):
    """Grey images as bright as the class asked for."""

    def forward(self, noise: Tensor, label: Tensor) -> Tensor:
        grey = 40 * label[:, None, None, None] + noise[:, :1, None, None]
        return grey.expand(-1, 1, 8, 8).to(torch.uint8)


def test_conditional_samples_are_measured_here_and_crash_torch_fidelity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = peers.import_torch_fidelity()
    monkeypatch.setitem(
        package.registry.FEATURE_EXTRACTORS_REGISTRY, "rows", as_torch_fidelity(Scaled)
    )
    generator, real, extractor = Conditional(), images(40, 5), Scaled()
    model = package.GenerativeModelModuleWrapper(generator, 4, "uniform_0_1", 3)
    with pytest.raises(AttributeError, match=r"np\.int|no attribute 'int'"):
        package.calculate_metrics(
            input1=model,
            input1_model_num_samples=40,
            input2=Stored(real),
            feature_extractor="rows",
            fid=True,
            cuda=False,
            cache=False,
            save_cpu_ram=True,
            verbose=False,
        )
    labels = torch.arange(40) % 3
    samples = SampleSet(generator(normal(40, 4).abs(), labels), labels)
    data = Dataset("small", "train", real, torch.arange(40) % 2, ("a", "b"))
    by = Yardstick(extractor, build_reference("rows", data, None, extractor))
    expected = torch_fidelity(
        extractor(samples.images).values.double(), extractor(real).values.double()
    )
    assert measure(samples, by).fid == pytest.approx(expected, rel=1e-6)


# However the samples come in


@settings(max_examples=20)
@given(
    cuts=st.lists(st.integers(1, 79), max_size=6),
    order=st.permutations(range(7)),
    tile=st.integers(1, 100),
)
def test_no_partition_or_order_of_batches_changes_a_figure(
    cuts: list[int], order: list[int], tile: int
) -> None:
    x, y = 1.5 * normal(80, 6) + 0.5, normal(70, 6, seed=1)
    bounds = [0, *sorted(set(cuts)), 80]
    parts = [x[a:b] for a, b in pairwise(bounds)]
    shuffled = [parts[i] for i in order if i < len(parts)]
    merged = Moments.of(shuffled[0])
    for part in shuffled[1:]:
        merged = Moments.of(part).merged(merged)
    whole, rows = Moments.of(x), torch.cat(shuffled)
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-12, atol=1e-14)
    scale = float(whole.scatter.diagonal().max())
    torch.testing.assert_close(merged.scatter, whole.scatter, rtol=1e-12, atol=1e-12 * scale)
    reference = Gaussian.of_features(y)
    distance = frechet_distance(Gaussian.of(merged), reference)
    assert distance == pytest.approx(ours(x, y), rel=1e-12)
    assert kernel_distance(rows, y, tile=tile) == pytest.approx(kernel_distance(x, y), rel=1e-12)
    assert inception_score(rows).value == pytest.approx(inception_score(x).value, rel=1e-12)
    assert manifold_scores(
        real=y, fake=rows, neighbours=3, strict=False, block=tile
    ) == manifold_scores(real=y, fake=x, neighbours=3, strict=False)
