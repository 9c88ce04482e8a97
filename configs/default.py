"""Every field: its default, unit and meaning. The other configs are diffs of it.

Which values a field may have stands once, in the dataclass that reads it
(`vgg_jax/training/config.py` names them all); a wrong value is answered with the right
ones before any work is done. A field that does nothing, because another one turns off
what it is about, keeps its default (`vgg_jax/training/idle.py`).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # initial weights, order of the images, augmentation
    config.epochs = 50  # passes over the training images
    config.batch_size = 128  # images per update
    # Parts of a batch, computed one by one or on several devices, to the same bits, and
    # in less memory: a power of two. Batch norm sees one part at a time. 1: not cut.
    config.shards = 1
    config.remainder = "drop"  # last partial training batch: "drop" it or "keep" it
    config.eval_batch_size = 500  # any value gives the same numbers
    config.lr = 0.01  # peak learning rate
    config.label_smoothing = 0.0  # share of the target spread over all classes
    config.ema_decay = 0.0  # per update, of an average to evaluate with; 0: off
    config.lookahead = 0.0  # per update; an average that pulls the weights back; 0: off
    config.views = 1  # views of an image in evaluation: 2: mirrored, 6: and shifted
    config.test_with = "best"  # weights tested at the end: "best" or "last"
    config.profile = 0  # steps to trace into <workdir>/profile (Perfetto); 0: none

    config.data = ConfigDict()
    # TFDS name, "cifar10_sample" (embedded), or "folder:photos", a folder of pictures
    # that is read as it is.
    config.data.name = "cifar10"
    # TFDS directory, which must exist; "": TFDS_DATA_DIR, else TFDS' default
    config.data.data_dir = ""
    config.data.archive_dir = ""  # of the official archive of CIFAR; "": the network
    config.data.train = "train"  # TFDS split, may be sliced: "train[:90%]"
    # "sklearn_80_20": train_test_split(test_size=0.2, random_state=42) of `train`, the
    # blog's; "none"; or a TFDS split.
    config.data.validation = "sklearn_80_20"
    config.data.test = "test"  # TFDS split
    config.data.stream = False  # decode from disk as needed, not into memory
    config.data.workers = 0  # processes that decode streamed images; 0: threads

    config.mesh = ConfigDict()
    config.mesh.data = 0  # devices, or groups of them, that share each batch; 0: all
    config.mesh.model = 1  # devices of a group, which divide fc6 and fc7 by columns
    # What each device holds of the optimiser's state and of the weights: all of it
    # (replicated), a share of the former (zero1) or of both (fsdp).
    config.mesh.state = "replicated"

    config.init = ConfigDict()  # weights to start from, instead of random ones
    config.init.path = ""  # a run's workdir or a file of weights; "": random
    config.init.layers = ("*",)  # which of its layers or parameters, by patterns

    config.augment = ConfigDict()  # of training images
    # Smaller side in pixels to which a picture is scaled, of which `resize` is cut at
    # random: (256,), or (256, 512) for any in between; (): not scaled so. On the device
    # for images in memory, as they are decoded for those from disk.
    config.augment.scales = ()
    config.augment.crop = 0  # pixels of padding before a random crop; 0: off
    config.augment.crop_mode = "zero"  # padding: "zero" or "reflect"
    config.augment.flip = "none"  # "none", "random" or "alternating"
    # Strength of random shifts of the colours along the principal components of those
    # of the training images: Krizhevsky's is 0.1; 0: off
    config.augment.colour = 0.0
    config.augment.cutout = 0  # pixels, side of the square set to zero; 0: off
    # Pixels (height and width) the network sees; 0: as in the data. Images that are
    # larger or not square are scaled to it by their smaller side, antialiased, and
    # cropped at the centre as they are read; smaller square ones are enlarged later.
    config.augment.resize = 0
    # Mean and deviation of the channels: "unit" (0 and 1), "symmetric", "cifar10",
    # "imagenet", "keras" (BGR); "data": those of the training images; "init": what the
    # network of init.path expects. "auto" is "init" where that is set, else "cifar10"
    # for CIFAR-10 and its sample, and "data" for other sets.
    config.augment.normalize = "auto"

    config.model = ConfigDict()
    config.model.variant = "D"  # Table 1 of the paper: A, A-LRN, B, C, D, E; or a table
    config.model.num_classes = 0  # 0: as many as the data set has
    config.model.width = 1.0  # multiplies the channels of every convolution
    config.model.batch_norm = False  # after each convolution (not the paper's)
    config.model.norm_scale = True  # whether batch norm learns a scale
    config.model.whiten = False  # whether conv1_1 whitens image patches, untrained
    config.model.head = "paper"  # "paper", "adaptive" (7x7 maps) or "compact"
    config.model.hidden = (4096, 4096)  # widths of the paper head's hidden layers
    config.model.dropout = 0.5  # rate after each hidden layer
    config.model.pool = "max"  # "max" or "average"
    config.model.pool_early = False  # pool before batch norm and ReLU
    # he, glorot_uniform, lecun, torchvision, paper, identity
    config.model.kernel_init = "he"
    config.model.logit_scale = 1.0  # multiplies the logits
    config.model.dtype = "auto"  # float32, bfloat16; auto: bfloat16 where it is fast
    config.model.conv = "auto"  # "auto": fast on each platform; "lax": XLA's own
    config.model.remat = "none"  # "stage": less memory, activations computed twice
    config.model.frozen = ()  # patterns of layers or parameters that do not train

    config.optimizer = ConfigDict()  # SGD
    config.optimizer.momentum = 0.9  # of the velocity; 0: plain SGD
    config.optimizer.nesterov = False  # Nesterov's look-ahead
    config.optimizer.decay = "decoupled"  # decoupled (SGDW), constant (tfa's), l2
    config.optimizer.weight_decay = 5e-4  # strength; 0: off
    config.optimizer.decay_all = True  # False: spare biases and norm parameters
    config.optimizer.bias_scale = 1.0  # multiplies lr of batch norm's biases
    config.optimizer.clip_norm = 0.0  # largest gradient norm; 0: off
    config.optimizer.muon = 0.0  # Muon for the kernels, at muon * lr; 0: off
    # Factors of lr by patterns, ("conv[12]_*=0.1", "fc8=10"); the last match decides.
    config.optimizer.layer_rates = ()
    config.optimizer.state_dtype = "float32"  # of the velocity as kept; bfloat16: half

    config.schedule = ConfigDict()  # of the learning rate
    config.schedule.name = "plateau"  # plateau, constant, step, cosine, triangular
    config.schedule.warmup = 0.0  # share of the epochs: linear rise from 0
    config.schedule.boundaries = (60, 120, 160)  # step: epochs at which lr drops
    config.schedule.factor = 0.1  # step and plateau: of a drop
    config.schedule.final_scale = 0.0  # cosine and triangular: last rate over peak
    config.schedule.monitor = "val_loss"  # plateau: {val,train}_{loss,accuracy,top5}
    config.schedule.patience = 1  # plateau: epochs without improvement
    config.schedule.min_delta = 1e-4  # plateau: least absolute improvement
    config.schedule.cooldown = 0  # plateau: Keras' cooldown, epochs
    config.schedule.min_lr = 1e-5  # plateau: floor of the learning rate

    config.checkpoint = ConfigDict()
    config.checkpoint.monitor = "accuracy"  # of validation; best by: accuracy, loss
    config.checkpoint.minutes = 10.0  # between saves inside a long epoch

    config.log = ConfigDict()
    config.log.every_steps = 50  # between rows of metrics.jsonl in an epoch
    config.log.tracker = "none"  # wandb, mlflow: there too, where installed
    return config
