"""int8 weights and activations, after training or by quantization-aware training; 16-bit weights."""

import copy
from dataclasses import dataclass, replace

import torch

from tinyscene.data import Clips, decode
from tinyscene.errors import InputError, Numbers, check
from tinyscene.models.classifier import SceneClassifier
from tinyscene.models.preparation import prepare
from tinyscene.models.quantized import FakeQuantized, Int8Network
from tinyscene.progress import say
from tinyscene.training.batches import RANGES, features_of_clips, refuse_short
from tinyscene.training.fit import Fit
from tinyscene.training.run import Run, Stage


@dataclass(frozen=True)
class Quantize(Stage):
    """int8 weights with a scale a channel, int32 biases, int8 activations (Jacob et al., CVPR 2018).

    Batch norm is folded first, where a layer feeds only it; elsewhere it becomes an explicit affine in float. Ranges
    of activations cost some training clips least, each clip's squared error over its own energy; with `fit`, training
    continues from there with everything rounded in the forward pass, gradients passing straight through, while ranges
    follow those of the batches by a moving average.

    Args:
        fit: quantization-aware training; without it, quantization after training.
        keep_float: patterns over module paths, such as "blocks.*.se"; matching modules stay in float.
        clips: number of training clips, drawn at random, that set the first ranges.
    """

    fit: Fit | None = None
    keep_float: tuple[str, ...] = ()
    clips: int = 128

    def __post_init__(self) -> None:
        check(self, fit=Fit | None, keep_float=tuple | list, clips=Numbers(least=1, whole=True))
        if self.fit is not None and self.fit.init is not None:
            raise InputError(
                f"Quantize(fit=...) with init={str(self.fit.init)!r}; accepted: a fit that continues from the trained "
                f"weights"
            )

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Quantize with meaningless ranges."""
        return self._converted(self._prepared(classifier))

    def apply(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """Set ranges on training clips, train if there is a `fit`, convert.

        Raises:
            InputError: a test clip is among the clips, there is no training clip or one is too short, or the
                classifier is untrained or its weights are not float32.
        """
        (self.fit or Fit()).require_train(clips)
        if self.fit is not None and not classifier.standardize.fitted:
            # Ranges would be of features that `fit` then standardizes.
            raise InputError("Quantize(fit=...) was given an untrained classifier; accepted: one that a Fit trained")
        prepared = self._prepared(classifier)
        self._set_ranges(prepared, clips.train, run)
        if self.fit is not None:
            prepared = self.fit.apply(prepared, clips, run)
        converted = self._converted(prepared)
        assert isinstance(converted.network, Int8Network)
        if in_float := converted.network.in_float:
            say(f"int8, but for these modules, kept in float: {', '.join(in_float)}", quiet=run.quiet)
        return converted

    def _prepared(self, classifier: SceneClassifier) -> SceneClassifier:
        classifier.require_float("Quantize")
        prepared = copy.deepcopy(classifier)
        prepared.network = prepare(classifier.network, classifier.short_example(), self.keep_float)
        return prepared

    def _set_ranges(self, prepared: SceneClassifier, clips: Clips, run: Run) -> None:
        network = prepared.network
        assert isinstance(network, FakeQuantized)
        drawn = run.rng(RANGES).permutation(len(clips))[: self.clips]
        rows = tuple(clips.rows[i] for i in sorted(drawn.tolist()))
        waveforms = decode(replace(clips, rows=rows), prepared.sample_rate, prepared.channel, quiet=run.quiet)
        refuse_short(prepared.shortest_samples, waveforms)
        prepared.to(run.fabric.device)
        features = features_of_clips(prepared, waveforms, run, "train")
        network.set_ranges(prepared.standardize(one) for one in features)

    def _converted(self, prepared: SceneClassifier) -> SceneClassifier:
        network = prepared.network
        assert isinstance(network, FakeQuantized)
        converted = copy.deepcopy(prepared)
        converted.network = network.convert()
        return converted.to(converted.standardize.mean.device).eval()


@dataclass(frozen=True)
class HalfPrecision(Stage):
    """Round every weight and batch norm statistic to IEEE 754 binary16; two bytes a value in memory and file.

    Arithmetic stays at 32 bits, as in the runtimes that take such files.
    """

    def shape(self, classifier: SceneClassifier) -> SceneClassifier:
        """Round the current weights."""
        if classifier.precision != "float16":
            classifier.require_float("HalfPrecision")
        halved = copy.deepcopy(classifier)
        for name, tensor in [*halved.network.named_parameters(), *halved.network.named_buffers()]:
            if tensor.is_floating_point():
                tensor.data = tensor.data.half()
                if not torch.isfinite(tensor).all():
                    raise InputError(
                        f"{name} holds values beyond ±65,504, the limit of 16 bits; accepted: smaller weights"
                    )
        return halved

    def apply(self, classifier: SceneClassifier, clips: Clips, run: Run) -> SceneClassifier:
        """Rounding needs no data."""
        return self.shape(classifier)
