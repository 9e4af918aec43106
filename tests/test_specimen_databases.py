"""Entries by number: a server of our own, a cache, checksums, and no network at all."""

import functools
import gzip
import http.server
import threading
from pathlib import Path

import pytest

from cryoetgan_core.paper import parse_maps
from cryoetgan_core.paper.own_data import parse_densities
from cryoetgan_core.simulator.specimen import databases, reference_map

ATOM = "ATOM  {0:5d}  CA  ALA A{0:4d}    {1:8.3f}{2:8.3f}{3:8.3f}  1.00 20.00           C\n"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A local server in place of the databases; yields the folder that it serves and the list of what was asked."""
    served, asked = tmp_path / "served", []
    served.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, _format: str, *args: object) -> None:
            asked.append(args[0])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=served)) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{httpd.server_address[1]}"
        monkeypatch.setattr(databases, "PDB_URL", address + "/{id}.pdb.gz")
        monkeypatch.setattr(databases, "EMDB_URL", address + "/emd_{id}.map.gz")
        monkeypatch.setenv("CRYOETGAN_CACHE", str(tmp_path / "cache"))
        yield served, asked
        httpd.shutdown()


def put(served: Path) -> None:
    text = "".join(ATOM.format(i, 7.0 * i % 31, 11.0 * i % 29, 5.0 * i) for i in range(1, 40))
    (served / "1abc.pdb.gz").write_bytes(gzip.compress(text.encode() + b"END\n"))


def test_an_entry_is_downloaded_once_and_used_by_its_number(server) -> None:
    served, asked = server
    put(served)
    volumes = [reference_map("pdb:1ABC", voxel_size_A=10.0, resolution_A=25.0, box=32) for _ in range(2)]
    assert len([a for a in asked if "1abc" in a]) == 1 and (volumes[0] == volumes[1]).all() and volumes[0].max() > 0
    assert parse_maps("tric=pdb:1abc") == {"tric": "pdb:1abc"}
    assert parse_densities("tric=pdb:1abc")[1] == {"tric": "pdb:1abc"}


def test_a_changed_file_is_refused(server) -> None:
    put(server[0])
    path = databases.fetch("pdb:1abc")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="1abc.pdb.gz: SHA-256.*delete it"):
        databases.fetch("pdb:1abc")


def test_what_does_not_exist_is_said_plainly(server) -> None:
    with pytest.raises(ValueError, match="emdb:EMD-9999.*answers 404"):
        databases.fetch("emdb:EMD-9999")
    for wrong in ("pdb:toolong", "emdb:xyz", "pdb:../etc", "chebi:1234"):
        with pytest.raises(ValueError, match="expected an entry such as"):
            databases.fetch(wrong)


def test_without_a_network_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYOETGAN_CACHE", str(tmp_path))
    monkeypatch.setattr(databases, "PDB_URL", "http://127.0.0.1:9/{id}.cif.gz")  # nothing listens there
    with pytest.raises(
        ConnectionError, match="pdb:3j9i: cannot be downloaded.*put it at .*3j9i.cif.gz, or give its path"
    ):
        reference_map("pdb:3j9i", voxel_size_A=10.0, resolution_A=25.0)
    assert list(tmp_path.iterdir()) == []  # nothing half-written


def test_a_file_put_into_the_cache_by_hand_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRYOETGAN_CACHE", str(tmp_path))
    monkeypatch.setattr(databases, "PDB_URL", "http://127.0.0.1:9/{id}.pdb.gz")
    put(tmp_path)
    assert reference_map("pdb:1abc", voxel_size_A=10.0, resolution_A=25.0).max() > 0
