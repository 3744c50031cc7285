"""What the network tests of all families share."""

from mindyolo_ext.backend import nn


class ModelAndDeploy(nn.Cell):
    """A network beside its deploy form, in inference mode; ``construct`` says which outputs a
    test wants.
    """

    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.model, self.deploy = model, model.to_deploy()
        self.set_train(False)
