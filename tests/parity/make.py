"""Make the arrays beside this file: the paper's networks, narrow, written in TensorFlow (needs `pip install
tensorflow-cpu`, not part of the environment).

Weights and inputs are drawn from the seed in the order of the names, so that a file holds outputs and input gradients
only. Computed in float64.
"""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf


def draw(shapes: dict[str, list[int]], seed: int) -> dict[str, tf.Tensor]:
    rng, arrays = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        a = rng.standard_normal(shape)
        a = 1 + 0.02 * a if name.endswith("/scale") else a if name.endswith("/u") else 0.02 * a
        arrays[name] = tf.constant(a.astype(np.float32).astype(np.float64))
    return arrays


def reflect(x: tf.Tensor, n: int) -> tf.Tensor:
    return tf.pad(x, [[0, 0], [n, n], [n, n], [n, n], [0, 0]], "REFLECT")


def instance_norm(x: tf.Tensor, w: dict, layer: str) -> tf.Tensor:
    mean, variance = tf.nn.moments(x, axes=[1, 2, 3], keepdims=True)
    return (
        w[f"{layer}/instance_norm/scale"] * (x - mean) / tf.sqrt(variance + 1e-5) + w[f"{layer}/instance_norm/offset"]
    )


def conv(x: tf.Tensor, kernel: tf.Tensor, stride: int, padding: str) -> tf.Tensor:
    return tf.nn.conv3d(x, kernel, [1, stride, stride, stride, 1], padding)


def up(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    b, n = x.shape[0], x.shape[1]
    return tf.nn.conv3d_transpose(x, kernel, [b, 2 * n, 2 * n, 2 * n, kernel.shape[3]], [1, 2, 2, 2, 1], "SAME")


def generator(x: tf.Tensor, z: tf.Tensor, w: dict) -> tf.Tensor:
    h = tf.nn.relu(instance_norm(conv(reflect(x, 3), w["G/c7s1_32/weights"], 1, "VALID"), w, "G/c7s1_32"))
    for layer in ("G/d64", "G/d128"):
        h = tf.nn.relu(instance_norm(conv(h, w[f"{layer}/weights"], 2, "SAME"), w, layer))
    for i in range(1, 7):
        r = tf.nn.relu(conv(reflect(h, 1), w[f"G/R128_{i}/layer1/weights1"], 1, "VALID"))
        h = h + conv(reflect(r, 1), w[f"G/R128_{i}/layer2/weights2"], 1, "VALID")
    h = tf.concat([h, z], 4)
    for layer in ("G/u64", "G/u32"):
        h = tf.nn.relu(instance_norm(up(h, w[f"{layer}/weights"]), w, layer))
    return tf.tanh(conv(reflect(h, 3), w["G/output/weights"], 1, "VALID"))


def normalised(kernel: tf.Tensor, u: tf.Tensor) -> tf.Tensor:
    """Divided by its largest singular value after one power iteration from u."""
    matrix = tf.reshape(kernel, [-1, kernel.shape[-1]])
    v = tf.math.l2_normalize(tf.matmul(u, matrix, transpose_b=True))
    u = tf.math.l2_normalize(tf.matmul(v, matrix))
    return kernel / tf.matmul(tf.matmul(v, matrix), u, transpose_b=True)[0, 0]


def discriminator(x: tf.Tensor, w: dict, sn: bool) -> tf.Tensor:
    for layer in ("C64", "C128", "C256", "C512", "output"):
        kernel = w[f"D/{layer}/weights"]
        kernel = normalised(kernel, w[f"D/{layer}/u"]) if sn else kernel
        x = conv(x, kernel, 1 if layer == "output" else 2, "SAME")
        if layer == "output":
            return x + w["D/output/biases"]
        x = tf.nn.leaky_relu(x if layer == "C64" else instance_norm(x, w, f"D/{layer}"), 0.2)


def generator_shapes(n: int) -> dict[str, list[int]]:
    shapes = {}
    for i in range(1, 7):
        shapes |= {f"G/R128_{i}/layer{k}/weights{k}": [3, 3, 3, 2 * n, 2 * n] for k in (1, 2)}
    kernels = {
        "c7s1_32": [7, 7, 7, 1, n], "d128": [3, 3, 3, 2 * n, 2 * n], "d64": [3, 3, 3, n, 2 * n],
        "output": [7, 7, 7, n, 1],
        "u32": [3, 3, 3, n, 2 * n], "u64": [3, 3, 3, 2 * n, 4 * n],
    }  # fmt: skip
    for layer, kernel in kernels.items():
        if layer != "output":
            width = n if layer in ("c7s1_32", "u32") else 2 * n
            shapes |= {f"G/{layer}/instance_norm/{k}": [width] for k in ("offset", "scale")}
        shapes[f"G/{layer}/weights"] = kernel
    return shapes


def discriminator_shapes(n: int, sn: bool) -> dict[str, list[int]]:
    shapes, before = {}, 1
    for layer, width in (("C64", n), ("C128", 2 * n), ("C256", 4 * n), ("C512", 8 * n), ("output", 1)):
        shapes[f"D/{layer}/weights"] = [4, 4, 4, before, width]
        if layer == "output":
            shapes["D/output/biases"] = [1]
        elif layer != "C64":
            shapes |= {f"D/{layer}/instance_norm/{k}": [width] for k in ("offset", "scale")}
        if sn:
            shapes[f"D/{layer}/u"] = [1, width]
        before = width
    return shapes


def write(name: str, box: int, seed: int, width: int, sn: bool = False) -> None:
    is_generator = name == "generator"
    shapes = generator_shapes(width) if is_generator else discriminator_shapes(width, sn)
    w, rng = draw(shapes, seed), np.random.default_rng(seed + 1)
    x = tf.constant(rng.standard_normal((2, box, box, box, 1)))
    b = -(-box // 4)
    z = tf.constant(rng.standard_normal((2, b, b, b, 2 * width))) if is_generator else None
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = generator(x, z, w) if is_generator else discriminator(x, w, sn)
        loss = tf.reduce_mean(y**2 if is_generator else y)
    meta = {
        "names": list(shapes),
        "shapes": list(shapes.values()),
        "box": box,
        "seed": seed,
        ("ngf" if is_generator else "ndf"): width,
        "sn": sn,
    }
    path = Path(__file__).with_name(f"{name}{'_sn' if sn else ''}_box{box}_width{width}.npz")
    dx = tape.gradient(loss, x)
    np.savez_compressed(
        path, y=y[..., 0].numpy().astype(np.float32), dx=dx[..., 0].numpy().astype(np.float32), meta=json.dumps(meta)
    )


write("generator", 16, 11, 4)
write("generator", 12, 12, 6)
write("discriminator", 24, 13, 4)
write("discriminator", 28, 14, 4, sn=True)
