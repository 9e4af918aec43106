"""Entries of the PDB and the EMDB by their number: downloaded once, kept in a cache, checked against their checksum
whenever used.
"""

import logging
import os
import re
from pathlib import Path

import pooch
import requests

PDB_URL = "https://files.rcsb.org/download/{id}.cif.gz"
EMDB_URL = "https://files.wwpdb.org/pub/emdb/structures/EMD-{id}/map/emd_{id}.map.gz"
_IDENTIFIER = re.compile(r"pdb:([0-9][a-z0-9]{3}|pdb_[0-9a-z]{8})|emdb:(?:emd[-_])?([0-9]{4,6})")


def is_identifier(source: str | Path) -> bool:
    """Whether a source is written as an entry of a database, such as "pdb:3j9i" or "emdb:3883"."""
    return _IDENTIFIER.fullmatch(str(source).lower()) is not None


def cache_folder() -> Path:
    """Where downloads are kept: $CRYOETGAN_CACHE, or the system's cache folder."""
    return Path(os.environ.get("CRYOETGAN_CACHE") or pooch.os_cache("cryoetgan"))


def fetch(identifier: str) -> Path:
    """Path of an entry's file in the cache, downloaded when it is not there: mmCIF for "pdb:3j9i", map for "emdb:3883"
    or "emdb:EMD-3883".

    The checksum of the first download is written beside the file, and later uses must agree with it.

    Raises ValueError for an identifier that is none, an entry that does not exist, or a file whose checksum is
    another; ConnectionError when it cannot be downloaded; the message says where to put the file by hand.
    """
    match = _IDENTIFIER.fullmatch(identifier.lower())
    if not match:
        raise ValueError(f"{identifier!r}: expected an entry such as pdb:3j9i or emdb:3883.")
    pdb, emdb = match.groups()
    url = PDB_URL.format(id=pdb) if pdb else EMDB_URL.format(id=emdb)
    path = cache_folder() / url.rsplit("/", 1)[1]
    record = path.with_name(path.name + ".sha256")
    if not path.exists():
        _download(identifier, url, path)
        record.unlink(missing_ok=True)
    found = pooch.file_hash(str(path))
    wanted = record.read_text().split()[0] if record.exists() else found
    if found != wanted:
        raise ValueError(
            f"{path}: SHA-256 {found[:12]}..., expected {wanted[:12]}...: the file was changed or cut off; delete it "
            "to download it again."
        )
    record.write_text(f"{found}  {path.name}\n")
    return path


def _download(identifier: str, url: str, path: Path) -> None:
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)  # it would print the checksum into notebooks
    try:
        pooch.retrieve(
            url, known_hash=None, fname=path.name, path=path.parent, downloader=pooch.HTTPDownloader(timeout=30)
        )
    except requests.exceptions.HTTPError as error:
        code = error.response.status_code
        raise ValueError(
            f"{identifier}: {url} answers {code}; expected an entry that exists and has a file of this kind."
        ) from None
    except (requests.exceptions.RequestException, OSError) as error:
        reason = type(error).__name__
        raise ConnectionError(
            f"{identifier}: cannot be downloaded from {url} ({reason}). Without a network, fetch it elsewhere and put "
            f"it at {path}, or give its path."
        ) from None
    finally:
        logger.setLevel(level)
