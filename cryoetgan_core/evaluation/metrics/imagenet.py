"""FID and Inception Score on ImageNet features of slices, as the paper has them, where the network's weights are at
hand.

The network is the TorchScript file of NVIDIA's StyleGAN metrics, ``inception-2015-12-05.pt``: it takes (N, 3, H, W)
uint8 and needs no other package. It is not downloaded: give its path as $CRYOETGAN_INCEPTION, or put it into torch's
own cache.
"""

import os
from pathlib import Path

import torch

FILE = "inception-2015-12-05.pt"


def weights_path() -> Path:
    """Where the weights are.

    Raises
    ------
    FileNotFoundError
        When they are at neither place; the message says what to do.
    """
    given = os.environ.get("CRYOETGAN_INCEPTION", "")
    cached = Path(torch.hub.get_dir()) / "checkpoints" / FILE
    path = Path(given) if given else cached
    if not path.is_file():
        raise FileNotFoundError(
            f"FID and IS on ImageNet features are left out: no Inception weights at {path}. Put {FILE} (TorchScript, "
            "from NVIDIA's StyleGAN metrics) there, or set CRYOETGAN_INCEPTION to its path."
        )
    return path


def slice_images(volumes: torch.Tensor, limit: float = 3.0) -> torch.Tensor:
    """Central xy, xz and yz slices of volumes (N, D, D, D) in units of their set's s.d., as grey images (3 N, 3, D, D)
    uint8 from -limit to limit.
    """
    middle = volumes.shape[-1] // 2
    slices = torch.cat([volumes[:, middle], volumes[:, :, middle], volumes[..., middle]])
    grey = ((slices / limit).clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
    return grey[:, None].expand(-1, 3, -1, -1)


@torch.no_grad()
def imagenet_features(
    volumes: torch.Tensor, path: Path | None = None, chunk: int = 64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (3 N, 2048) and class probabilities (3 N, classes) of the slices of volumes (N, D, D, D).

    Parameters
    ----------
    path
        of the weights; default `weights_path`.

    Raises
    ------
    FileNotFoundError
        When there are no weights.
    ValueError
        When the file is no such network.
    """
    path = path or weights_path()
    try:
        network = torch.jit.load(str(path), map_location="cpu").eval()
        images = slice_images(volumes)
        features = torch.cat([network(i, return_features=True).float() for i in images.split(chunk)])
        probabilities = torch.cat([network(i).float() for i in images.split(chunk)])
    except RuntimeError as error:
        raise ValueError(
            f"{path}: not the TorchScript Inception network ({str(error).splitlines()[0]}); expected {FILE}."
        ) from error
    return features, probabilities
