"""Weight records and fetching, against a server on this machine's loopback."""

import dataclasses
import hashlib
import http.server
import threading

import pytest
import torch

from atlas.errors import InputError
from thirdparty.weights import (
    RECORDS,
    WeightRecord,
    cache_folder,
    check_file,
    fetch,
    find_weights,
    load_state,
)

BODY = bytes(range(256)) * 1500  # 384,000 bytes: more than one block


class Handler(http.server.BaseHTTPRequestHandler):
    """/whole sends BODY and knows ranges; /plain knows none; /short stops half way."""

    ranges: list = []  # noqa: RUF012 - what was asked for, by request

    def do_GET(self):
        asked = self.headers.get("Range")
        self.ranges.append(asked)
        if self.path.startswith("/missing"):
            self.send_error(404)
            return
        start = 0
        if asked and self.path.startswith("/whole"):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(BODY) - start))
        self.end_headers()
        body = BODY[start:]
        self.wfile.write(body[: len(body) // 2] if self.path.startswith("/short") else body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("SKYWEAVE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    Handler.ranges = []
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def record(url: str, **changes) -> WeightRecord:
    given = {
        "name": "tiny",
        "url": url,
        "sha256": hashlib.sha256(BODY).hexdigest(),
        "size_bytes": len(BODY),
        "licence": "none",
        "source": "this test",
        "score": "none",
    }
    return WeightRecord(**{**given, **changes})


def left_behind() -> list[str]:
    return sorted(p.name for p in cache_folder().iterdir())


def test_a_good_file_is_fetched_once_and_reported(server):
    seen = []
    wanted = record(f"{server}/whole.pth")
    path = find_weights(wanted, report=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert left_behind() == ["whole.pth"]
    find_weights(wanted)
    assert len(Handler.ranges) == 1  # the second time comes from the cache


def test_a_hash_prefix_is_enough_and_an_unknown_size_is_allowed(server):
    digest = hashlib.sha256(BODY).hexdigest()
    wanted = record(f"{server}/whole.pth", sha256=digest[:8], size_bytes=None)
    assert find_weights(wanted).read_bytes() == BODY


def test_a_wrong_hash_is_refused_and_nothing_is_left(server):
    wanted = record(f"{server}/whole.pth", sha256="0" * 64)
    with pytest.raises(InputError, match=r"not the recorded file.*sha256 is"):
        find_weights(wanted)
    assert left_behind() == []


def test_a_wrong_length_is_refused(server):
    wanted = record(f"{server}/whole.pth", size_bytes=len(BODY) + 1)
    with pytest.raises(InputError, match=f"has {len(BODY)} bytes, wanted {len(BODY) + 1}"):
        find_weights(wanted)


def test_a_short_answer_is_an_error_and_goes_on_next_time(server):
    with pytest.raises(InputError, match="cannot fetch"):
        find_weights(record(f"{server}/short.pth"))
    assert left_behind() == ["short.pth.part"]
    half = len(BODY) // 2
    part = cache_folder() / "whole.pth.part"
    (cache_folder() / "short.pth.part").rename(part)
    assert part.stat().st_size == half
    assert find_weights(record(f"{server}/whole.pth")).read_bytes() == BODY
    assert Handler.ranges[-1] == f"bytes={half}-"


def test_a_server_without_ranges_starts_afresh(server):
    cache_folder().mkdir(parents=True)
    (cache_folder() / "plain.pth.part").write_bytes(b"rubbish")
    assert find_weights(record(f"{server}/plain.pth")).read_bytes() == BODY


def test_a_damaged_cached_file_is_fetched_again(server, caplog):
    cache_folder().mkdir(parents=True)
    (cache_folder() / "whole.pth").write_bytes(BODY[:-1] + b"x")
    assert find_weights(record(f"{server}/whole.pth")).read_bytes() == BODY
    assert "fetching it again" in caplog.text


def test_not_found_names_the_address_and_the_way_on(server):
    with pytest.raises(InputError, match=rf"{server}/missing.pth \(HTTP 404.*give its path"):
        find_weights(record(f"{server}/missing.pth"))


def test_offline_names_the_address_and_the_way_on(server):
    closed = "http://127.0.0.1:9"  # the discard port: nothing listens
    with pytest.raises(InputError, match=rf"cannot fetch {closed}/a.pth .*other means"):
        fetch(record(f"{closed}/a.pth"), cache_folder() / "a.pth")


def test_a_local_file_is_taken_as_it_is(tmp_path):
    mine = tmp_path / "mine.pth"
    mine.write_bytes(b"my own training")
    assert find_weights(record("http://127.0.0.1:9/a.pth"), local=mine) == mine
    with pytest.raises(InputError, match="not found"):
        find_weights(record("http://127.0.0.1:9/a.pth"), local=tmp_path / "other.pth")


@pytest.mark.parametrize("wrapped", ["bare", "state_dict", "model"])
def test_load_state_unwraps_and_strips_module(tmp_path, wrapped):
    tensors = {"module.a.weight": torch.arange(6.0).reshape(2, 3), "module.b": torch.ones(1)}
    torch.save(tensors if wrapped == "bare" else {wrapped: tensors}, tmp_path / "w.pth")
    state = load_state(tmp_path / "w.pth")
    assert set(state) == {"a.weight", "b"}
    torch.testing.assert_close(state["a.weight"], tensors["module.a.weight"])


class Trap:
    """Would run code when unpickled."""

    def __reduce__(self):
        return (print, ("code from a weight file was run",))


def test_load_state_runs_no_code(tmp_path, capsys):
    torch.save({"a": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(InputError, match="not a readable PyTorch weight file"):
        load_state(tmp_path / "trap.pth")
    assert capsys.readouterr().out == ""


def test_load_state_refuses_other_things(tmp_path):
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(InputError, match="not a readable"):
        load_state(tmp_path / "text.pth")
    torch.save({"a": 3}, tmp_path / "numbers.pth")
    with pytest.raises(InputError, match="wanted a state dict"):
        load_state(tmp_path / "numbers.pth")


@pytest.mark.parametrize("name", sorted(n for n, r in RECORDS.items() if r.url.endswith(".pth")))
def test_recorded_hashes_agree_with_the_published_file_names(name):
    """torchvision puts the first 8 digits of the sha256 into each file name."""
    found = RECORDS[name]
    assert found.file_name.removesuffix(".pth").rsplit("-", 1)[1] == found.sha256[:8]
    assert len(found.sha256) == 64


def test_records_agree_with_torchvision():
    from torchvision.models import detection, optical_flow

    known = {
        "raft_large": optical_flow.Raft_Large_Weights.C_T_SKHT_V2,
        "raft_small": optical_flow.Raft_Small_Weights.C_T_V2,
        "maskrcnn_resnet50_fpn": detection.MaskRCNN_ResNet50_FPN_Weights.COCO_V1,
        "maskrcnn_resnet50_fpn_v2": detection.MaskRCNN_ResNet50_FPN_V2_Weights.COCO_V1,
    }
    for name, weights in known.items():
        assert RECORDS[name].url == weights.url
        size_mib = RECORDS[name].size_bytes / 2**20
        assert size_mib == pytest.approx(weights.meta["_file_size"], abs=0.001)


def test_a_record_needs_a_usable_hash():
    with pytest.raises(ValueError, match="8 to 64"):
        dataclasses.replace(RECORDS["raft_small"], sha256="abc")


def test_check_file_passes_a_good_file(tmp_path):
    (tmp_path / "a").write_bytes(BODY)
    check_file(record("http://x/a"), tmp_path / "a")
