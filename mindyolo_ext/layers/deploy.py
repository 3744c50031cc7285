"""The common base of the deploy forms of all families."""

from mindyolo_ext.backend import Tensor, nn
from mindyolo_ext.layers.fold import copy_parameters, fold_batch_norms


class DeployForm(nn.Cell):
    """A detector for inference: the network with folded batch norms. ``construct`` is the family's
    export form.

    Args:
        source: the detector in training form; it is not changed.
        network: another instance of the same network; it receives the weights and is folded.
    """

    def __init__(self, source: nn.Cell, network: nn.Cell):
        super().__init__(auto_prefix=False)
        self.family, self.strides = source.family, source.strides
        self.num_classes = source.num_classes
        self.architecture = source.architecture
        self.input_spec = source.input_spec
        copy_parameters(source, network)
        fold_batch_norms(network)
        self.network = network
        self.set_train(False)

    def predict(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return boxes (B, A, 4) xyxy in pixels of the input and scores (B, A, K), as the training
        form does.
        """
        return self.network.predict(images)
