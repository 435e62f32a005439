"""Images in, figures out, with one extractor for all: the figures are those of other packages."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import peers
from underone.data import Dataset, SampleSet, load_dataset, read_samples
from underone.metrics import Features, Measurement, Yardstick, build_reference, measure
from underone.metrics.extractor import features_of

SLICE = Path(__file__).parent / "data" / "fashion-mnist"
CLASSES, EACH = 10, 40
FEATURES = 16
METRICS = ("fid", "fid-held-out", "intra-fid", "kid", "inception-score", "manifold")

pytestmark = [
    pytest.mark.filterwarnings("ignore:Metric .* will save all extracted features"),
    pytest.mark.filterwarnings("ignore:The `disp` argument"),
]


@dataclass(frozen=True)
class Projections:
    """tanh of a random linear map of the pixels, and ten logits from another such map.

    All in integers up to the last step, and rounded after it: whoever cuts images into batches,
    and whether features are held in float16, float32 or float64, they are the same numbers. So
    coarse are they that many points lie exactly on the surface of a ball, for every package.
    """

    name: str = "projections"
    revision: int | None = None

    @cached_property
    def weights(self) -> Tensor:
        """(784, 26), float64 integers."""
        generator = torch.Generator().manual_seed(0)
        size = (28 * 28, FEATURES + CLASSES)
        return torch.randint(-8, 9, size, generator=generator).double()

    @property
    def sha256(self) -> str:
        """Of the weights, which decide all."""
        return hashlib.sha256(self.weights.numpy().tobytes()).hexdigest()

    def __call__(self, images: Tensor) -> Features:
        """Multiples of 1/4 within [-4, 4]; logits within about [-6, 6]."""
        mapped = images.flatten(1).double() @ self.weights / 30_000
        values, logits = mapped.split([FEATURES, CLASSES], dim=1)
        return Features(((16 * values.tanh()).round() / 4).float(), (3 * logits).float())


@dataclass(frozen=True, eq=False)
class Sets:
    """Real images, others that were spoilt a little, and these before they were: 40 a class."""

    real: Dataset
    generated: SampleSet
    held_out: Dataset


@pytest.fixture(scope="module")
def sets() -> Sets:
    data = load_dataset("fashion-mnist", "test", SLICE)
    members = [(data.labels == label).nonzero().flatten() for label in range(CLASSES)]
    first, second = (
        torch.stack([indices[start : start + EACH] for indices in members], dim=1).flatten()
        for start in (0, EACH)
    )
    blurred = functional.avg_pool2d(data.images[second].float(), 3, 1, 1)
    # Noise in blocks of pixels, which the sums over pixels do not average out.
    noise = torch.randn(len(second), 1, 4, 4, generator=torch.Generator().manual_seed(1))
    blocks = noise.repeat_interleave(7, dim=2).repeat_interleave(7, dim=3)
    images = (blurred + 60 * blocks).clamp(0, 255).round().to(torch.uint8)
    labels = data.labels[second]
    return Sets(
        replace(data, split="train", images=data.images[first], labels=data.labels[first]),
        SampleSet(images, labels, protocol={"labels": "balanced"}),
        replace(data, images=data.images[second], labels=labels),
    )


@pytest.fixture(scope="module")
def by(sets: Sets) -> Yardstick:
    extractor = Projections()
    return Yardstick(extractor, build_reference("real", sets.real, sets.held_out, extractor))


@pytest.fixture(scope="module")
def measured(sets: Sets, by: Yardstick) -> Measurement:
    return measure(sets.generated, by, METRICS)


def value(measured: Measurement, name: str) -> float:
    return measured.figures[name].value


def features(images: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    return features_of(Projections(), images).values.to(dtype)


# What theirs are given


class Stored(torch.utils.data.Dataset[Tensor]):
    """Images for torch-fidelity, one at a time."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


class Network(nn.Module):
    """The extractor as torchmetrics takes it: a network from images to one tensor."""

    def __init__(self, outputs: Callable[[Features], Tensor | None], num_features: int) -> None:
        super().__init__()
        self.outputs, self.num_features = outputs, num_features

    def forward(self, images: Tensor) -> Tensor:
        found = self.outputs(Projections()(images))
        assert found is not None
        return found.double()


def as_torch_fidelity(dtype: torch.dtype) -> type:
    """The extractor as torch-fidelity takes it: a class, with its layers by name."""

    def initialise(self: Any, name: str, layers: list[str], **_: Any) -> None:
        super(type(self), self).__init__(name, layers)

    def forward(self: Any, images: Tensor) -> tuple[Tensor, ...]:
        found = Projections()(images)
        assert found.logits is not None
        layers = {"features": found.values.to(dtype), "logits": found.logits.to(dtype)}
        return tuple(layers[name] for name in self.features_list)

    return type(
        "Layers",
        (peers.import_torch_fidelity().FeatureExtractorBase,),
        {
            "__init__": initialise,
            "forward": forward,
            "get_provided_features_list": staticmethod(lambda: ("features", "logits")),
            "get_default_feature_layer_for_metric": staticmethod(
                lambda metric: "logits" if metric == "isc" else "features"
            ),
            "can_be_compiled": staticmethod(lambda: False),
        },
    )


def torch_fidelity(
    generated: Tensor, real: Tensor, dtype: torch.dtype, **options: Any
) -> dict[str, float]:
    package = peers.import_torch_fidelity()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(
            package.registry.FEATURE_EXTRACTORS_REGISTRY, "projections", as_torch_fidelity(dtype)
        )
        result: dict[str, float] = package.calculate_metrics(
            input1=Stored(generated),
            input2=Stored(real),
            feature_extractor="projections",
            cuda=False,
            cache=False,
            save_cpu_ram=True,
            verbose=False,
            **options,
        )
    return result


class ToTensor:
    """What clean-fid takes from torchvision: HWC float32 to CHW."""

    def __call__(self, image: np.ndarray[Any, np.dtype[np.float32]]) -> Tensor:
        return torch.from_numpy(image).permute(2, 0, 1)


# The comparisons


def test_the_two_sets_differ_and_are_measured_in_full(measured: Measurement, by: Yardstick) -> None:
    reference = by.reference
    assert reference.features is not None
    assert len(reference.features) == reference.count == CLASSES * EACH
    # Nothing is lost in float16, so that all packages compare the same numbers.
    kept = reference.features.values.double()
    torch.testing.assert_close(kept.mean(0), reference.mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(kept.T.cov(), reference.covariance, rtol=0, atol=1e-12)
    assert value(measured, "fid") > 0.2
    assert value(measured, "kid") > 1e-2
    assert 1.2 < value(measured, "inception-score") < 9
    for share in ("precision", "recall", "density", "coverage"):
        assert 0.1 < value(measured, share) < 0.95, share


# In float32 theirs is limited by the mean, which numpy takes in the features' own precision.
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-6)], ids=str
)
def test_torch_fidelity_has_the_same_figures(
    dtype: torch.dtype, tolerance: float, sets: Sets, measured: Measurement
) -> None:
    count = len(sets.generated)
    theirs = torch_fidelity(
        sets.generated.images,
        sets.real.images,
        dtype,
        fid=True,
        kid=True,
        kid_subsets=1,
        kid_subset_size=count,
        isc=True,
        isc_splits=1,
        prc=True,
    )
    fid, kid = theirs["frechet_inception_distance"], theirs["kernel_inception_distance_mean"]
    assert value(measured, "fid") == pytest.approx(fid, rel=tolerance)
    # One subset of all of equally many: their estimate and ours are the same, term by term.
    assert value(measured, "kid") == pytest.approx(kid, rel=100 * tolerance)
    score = theirs["inception_score_mean"]
    assert value(measured, "inception-score") == pytest.approx(score, rel=1e-12)
    # Theirs are float32 averages of zeros and ones.
    for share in ("precision", "recall"):
        assert value(measured, share) * count == round(theirs[share] * count)


def test_torch_fidelity_has_the_same_figures_of_fewer_samples(sets: Sets, by: Yardstick) -> None:
    some = sets.generated.images[:250]
    ours = measure(SampleSet(some), by, METRICS)
    theirs = torch_fidelity(some, sets.real.images, torch.float64, fid=True, prc=True)
    fid = theirs["frechet_inception_distance"]
    assert value(ours, "fid") == pytest.approx(fid, rel=1e-10)
    assert value(ours, "precision") * 250 == round(theirs["precision"] * 250)
    assert value(ours, "recall") * len(sets.real) == round(theirs["recall"] * len(sets.real))


def test_torchmetrics_has_the_same_figures(sets: Sets, measured: Measurement) -> None:
    image = peers.import_torchmetrics().image
    of_features = Network(lambda found: found.values, FEATURES)
    of_logits = Network(lambda found: found.logits, CLASSES)
    fid = image.fid.FrechetInceptionDistance(feature=of_features)
    count = len(sets.generated)
    kid = image.kid.KernelInceptionDistance(feature=of_features, subsets=1, subset_size=count)
    score = image.inception.InceptionScore(feature=of_logits, splits=1)
    for generated, real in zip(
        sets.generated.images.split(150), sets.real.images.split(150), strict=True
    ):
        score.update(generated)
        for metric in (fid, kid):
            metric.update(generated, real=False)
            metric.update(real, real=True)
    assert value(measured, "fid") == pytest.approx(float(fid.compute()), rel=1e-10)
    assert value(measured, "kid") == pytest.approx(float(kid.compute()[0]), rel=1e-10)
    with pytest.warns(UserWarning, match="degrees of freedom"):
        mean, _ = score.compute()
    assert value(measured, "inception-score") == pytest.approx(float(mean), rel=1e-10)


def test_clean_fid_has_the_same_figures_from_folders(
    sets: Sets, measured: Measurement, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = peers.import_cleanfid()
    fid = package.fid
    # torchvision itself may not be installed; of it only this is needed.
    monkeypatch.setattr(package.utils.torchvision.transforms, "ToTensor", ToTensor)
    sets.generated.save_png_folder(tmp_path / "generated")
    SampleSet(sets.real.images).save_png_folder(tmp_path / "real")
    assert torch.equal(read_samples(tmp_path / "generated").images, sets.generated.images)

    def extract(colours: Tensor) -> Tensor:
        """From three equal channels in 0..255, as clean-fid reads grey images."""
        return features(colours[:, :1].round().to(torch.uint8))

    theirs = fid.compute_fid(
        str(tmp_path / "generated"),
        str(tmp_path / "real"),
        custom_feat_extractor=extract,
        custom_fn_resize=lambda pixels: pixels.astype(np.float32),
        num_workers=0,
        device=torch.device("cpu"),
        verbose=False,
    )
    assert value(measured, "fid") == pytest.approx(theirs, rel=1e-10)
    x, y = features(sets.generated.images).numpy(), features(sets.real.images).numpy()
    kid = fid.kernel_distance(x, y, num_subsets=1, max_subset_size=len(x))
    assert value(measured, "kid") == pytest.approx(kid, rel=1e-10)


def test_pytorch_fid_has_the_same_distances_of_classes_and_held_out_images(
    sets: Sets, measured: Measurement
) -> None:
    def theirs(x: Tensor, y: Tensor) -> float:
        score = peers.import_pytorch_fid().fid_score
        a, b = features(x).numpy(), features(y).numpy()
        moments = (a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))
        return float(score.calculate_frechet_distance(*moments))

    generated, real, held_out = sets.generated.images, sets.real, sets.held_out
    of_held_out = theirs(generated, held_out.images)
    assert value(measured, "fid-held-out") == pytest.approx(of_held_out, rel=1e-10)
    of_classes = [
        theirs(generated[held_out.labels == label], real.images[real.labels == label])
        for label in range(CLASSES)
    ]
    # A reference holds the covariances of classes in float32.
    for label, distance in enumerate(of_classes):
        assert value(measured, f"fid-{label}") == pytest.approx(distance, rel=1e-5)
    mean = sum(of_classes) / CLASSES
    assert value(measured, "intra-fid") == pytest.approx(mean, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_prdc_has_the_same_density_and_coverage(
    dtype: torch.dtype, sets: Sets, measured: Measurement
) -> None:
    theirs = peers.import_prdc().compute_prdc(
        features(sets.real.images, dtype).numpy(),
        features(sets.generated.images, dtype).numpy(),
        nearest_k=5,
    )
    assert value(measured, "density") == pytest.approx(theirs["density"], rel=1e-12)
    assert value(measured, "coverage") == theirs["coverage"]
