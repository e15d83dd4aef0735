"""Saved models that are cut, altered or lie: each either loads and runs, or raises a zeroskip error. Never a crash."""

import json
import random
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))

import runtime_models as small  # noqa: E402

import zeroskip  # noqa: E402
from zeroskip import DamagedFile, ZeroskipError  # noqa: E402

FILES = ("zeroskip.json", "model.safetensors", "tokenizer.json")
NASTY = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    1e308,
    -0.5,
    "",
    "x",
    "../../etc/passwd",
    [],
    [1],
    {},
    {"a": 1},
    "nan",
    "é",
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """One encoder and one decoder with every storage format in them."""
    home = tmp_path_factory.mktemp("saved")

    def times(packs, n, share_s, keep, cold_bytes, **_):
        return {name: 2e-6 if "_dense_" in name else 1e-6 for name in packs}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zeroskip.runtime.measure, "interleaved", times)
        encoder = zeroskip.compile(small.bert(), tokenizer=small.word_tokenizer(), **small.OPTIONS)
        decoder = zeroskip.compile(small.llama(), tokenizer=small.word_tokenizer(special=False), **small.OPTIONS)
    encoder.save(home / "encoder")
    decoder.save(home / "decoder")
    return home


def use(folder):
    """Load and run; whatever is wrong must come as a ZeroskipError of one line, which is returned."""
    found = None
    try:
        model = zeroskip.load(folder)
        ids = np.array([[5, 6, 7, 8, 9]])
        model(ids)
        if model.kind == "encoder":
            model.embed(["the cat sat", "a dog"])
        else:
            model.generate("the cat", max_tokens=3)
            model.generate("the cat", max_tokens=3, temperature=1.0, seed=0)
        model.report()
    except ZeroskipError as error:
        found = error
    assert "\n" not in str(found)
    return found


def relist(folder):
    """Make sizes and hashes in zeroskip.json true again, as a hostile author would."""
    import hashlib

    path = folder / "zeroskip.json"
    described = json.loads(path.read_text())
    for name in list(described["files"]):
        content = (folder / name).read_bytes()
        described["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    path.write_text(json.dumps(described))


def test_the_saved_ones_are_fine(saved):
    assert use(saved / "encoder") is None
    assert use(saved / "decoder") is None


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("seed", range(4))
def test_random_damage(saved, tmp_path, kind, seed):
    rng = random.Random(f"{kind}{seed}")
    refused = 0
    for round_ in range(40):
        folder = tmp_path / str(round_)
        shutil.copytree(saved / kind, folder)
        name = rng.choice(FILES)
        path = folder / name
        content = bytearray(path.read_bytes())
        action = rng.choice(("flip", "flip", "bytes", "cut", "grow", "drop", "repeat"))
        at = rng.randrange(len(content))
        if action == "flip":
            for _ in range(rng.choice((1, 1, 8))):
                content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        elif action == "bytes":
            content[at : at + 8] = bytes(rng.randrange(256) for _ in range(8))
        elif action == "cut":
            del content[at:]
        elif action == "grow":
            content += bytes(rng.randrange(1, 100))
        elif action == "drop":
            del content[at : at + rng.randrange(1, 64)]
        else:
            content[at:at] = content[at : at + rng.randrange(1, 64)]
        path.write_bytes(content)
        if name != "zeroskip.json" and rng.random() < 0.7:
            relist(folder)
        refused += use(folder) is not None
        shutil.rmtree(folder)
    assert refused > 10


def places(value, path=()):
    """Every place in a JSON value, as the keys that lead there."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("kind", ["encoder", "decoder"])
@pytest.mark.parametrize("seed", range(5))
def test_lies_in_the_description(saved, tmp_path, kind, seed):
    rng = random.Random(f"lies{kind}{seed}")
    folder = tmp_path / "m"
    shutil.copytree(saved / kind, folder)
    path = folder / "zeroskip.json"
    described = json.loads(path.read_text())
    every = [place for place in places(described) if place]
    top = sorted({place[0] for place in every})
    refused = 0
    for _ in range(60):
        part = rng.choice(top)  # the plan has most places; each part gets its share
        place = rng.choice([place for place in every if place[0] == part])
        new = rng.choice(NASTY)
        if rng.random() < 0.3:
            other = rng.choice(every)
            new = described
            for key in other:
                new = new[key]
        path.write_text(json.dumps(replaced(described, place, new)))
        refused += use(folder) is not None
    assert refused > 20


def edit(folder, change):
    path = folder / "zeroskip.json"
    described = json.loads(path.read_text())
    change(described)
    path.write_text(json.dumps(described))


@pytest.fixture
def copy(saved, tmp_path):
    shutil.copytree(saved / "encoder", tmp_path / "m")
    return tmp_path / "m"


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(version=2),
        lambda d: d.update(format="pickle"),
        lambda d: d.update(kind="torch"),
        lambda d: d["files"].update({"../outside": {"bytes": 1, "sha256": ""}}),
        lambda d: d["files"].update({"/etc/passwd": {"bytes": 1, "sha256": ""}}),
        lambda d: d["files"].update({"..": {"bytes": 1, "sha256": ""}}),
        lambda d: d["files"].update({"gone.bin": {"bytes": 1, "sha256": ""}}),
        lambda d: d["files"].pop("model.safetensors"),
        lambda d: d["linears"].pop(next(iter(d["linears"]))),
        lambda d: d["linears"][next(iter(d["linears"]))].update(format="pickle"),
        lambda d: d["linears"][next(iter(d["linears"]))].update(shape=[2**31 - 1, 2**31 - 1]),
        lambda d: d["linears"][next(iter(d["linears"]))].update(dtype="float16"),
        lambda d: d["plan"].pop(),
        lambda d: d["plan"][0].update(shape=[1, 1]),
        lambda d: d["graph"]["steps"][0].update(op="exec"),
        lambda d: d["graph"]["steps"].append({"op": "linear", "in": "hidden", "out": "h", "linear": "no such"}),
        lambda d: d["graph"]["steps"][0].update(table="no such"),
        lambda d: d["graph"]["buffers"].update(h=2**24),
        lambda d: d.pop("text"),
        lambda d: d["text"].update(max_length=0),
        lambda d: d["text"].update(stop_ids=[-1]),
    ],
)
def test_named_lies_are_damaged_files(copy, change):
    edit(copy, change)
    assert isinstance(use(copy), DamagedFile)


def test_a_giant_or_deep_description_is_refused(copy):
    path = copy / "zeroskip.json"
    text = path.read_text()
    path.write_text("[" * 200_000)
    assert isinstance(use(copy), DamagedFile)
    path.write_text(text.replace('"version": 1', '"version": ' + "9" * 10_000))
    assert isinstance(use(copy), DamagedFile)
    path.write_text(text.replace('"version": 1', '"version": NaN'))
    assert isinstance(use(copy), DamagedFile)
    with path.open("wb") as file:
        file.truncate(65 * 2**20)
    assert isinstance(use(copy), DamagedFile)


def test_verify_finds_one_flipped_bit_of_a_value(copy):
    path = copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    header = int.from_bytes(content[:8], "little")
    table = json.loads(content[8 : 8 + header])["embeddings.word_embeddings.weight"]
    content[8 + header + table["data_offsets"][0]] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match="sha256"):
        zeroskip.load(copy, verify=True)


def test_nothing_in_the_folder_is_imported_or_unpickled(copy):
    marker = copy.parent / "ran"
    (copy / "zeroskip.py").write_text(f"open({str(marker)!r}, 'w')")
    (copy / "modeling.py").write_text(f"open({str(marker)!r}, 'w')")
    (copy / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    assert use(copy) is None
    assert not marker.exists()
