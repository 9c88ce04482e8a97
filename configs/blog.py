"""The blog's program to the letter: VGG-16 (C), 224 px, Glorot, tfa's constant decay.

CIFAR-10 upsampled to 224 and scaled to [0, 1], batches of 32, no augmentation, no
dropout, float32, Keras' Glorot-uniform kernels; `tfa.optimizers.SGDW(weight_decay=5e-4,
learning_rate=0.01, momentum=0.9)`, whose decay is not multiplied by the learning rate;
`ReduceLROnPlateau(monitor="val_loss", factor=0.1, patience=1, min_lr=1e-5)`; 50 epochs;
the last weights are tested. `--config.augment.resize=0` runs it at 32 px.

    python main.py --config=configs/blog.py
"""

from configs import default


def get_config():
    config = default.get_config()
    config.batch_size = 32
    config.eval_batch_size = 32
    config.test_with = "last"
    config.augment.resize = 224
    config.augment.normalize = "unit"
    config.model.variant = "C"
    config.model.dropout = 0.0
    config.model.kernel_init = "glorot_uniform"
    config.model.dtype = "float32"
    config.optimizer.decay = "constant"
    return config
