import hashlib
import http.server
import io
import json
import threading
import zipfile
from pathlib import Path

import pytest

from scircuit.errors import ScircuitError
from scircuit.knowledge import registry
from scircuit.knowledge.gmt import GeneSets
from scircuit.knowledge.networks import Network
from scircuit.knowledge.sources import KNOWN, READERS, Remote, Source

GMT = b"a\t\tX\tY\nb\t\tY\tZ\n"
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("release/lib.gmt", GMT)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("pooch", reason="pooch is not installed")
    files = {"/lib.gmt": GMT, "/broken.gmt": b"no tab here\n", "/lib.zip": zipped()}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/cut.gmt":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(GMT)
            elif self.path in files:
                self.send_response(200)
                self.send_header("Content-Length", str(len(files[self.path])))
                self.end_headers()
                self.wfile.write(files[self.path])
            else:
                self.send_error(404)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.fixture
def known(server, monkeypatch):
    def register(file: str, sha256: str | None = None, member: str | None = None) -> None:
        remote = Remote(f"{server}/{file}", "lib.gmt", sha256, member)
        monkeypatch.setitem(KNOWN, "toy_lib", Source("toy_lib", "Toy", "1", "CC0", "gene sets", (remote,)))

    return register


def leftovers(cache: Path) -> list[str]:
    return [p.name for p in (cache / "knowledge").iterdir()] if (cache / "knowledge").exists() else []


def test_fetched_once_and_read_offline(known, tmp_path, monkeypatch):
    known("lib.gmt", hashlib.sha256(GMT).hexdigest())
    folder = registry.fetch("toy_lib", cache=tmp_path)
    assert leftovers(tmp_path) == ["toy_lib"]
    monkeypatch.setattr(registry, "_pooch", lambda: pytest.fail("the network was asked again"))
    assert registry.fetch("toy_lib", cache=tmp_path) == folder
    sets = registry.load("toy_lib", cache=tmp_path)
    assert isinstance(sets, GeneSets)
    assert sets.genes == {"a": ("X", "Y"), "b": ("Y", "Z")}
    assert (sets.name, sets.version, sets.sha256) == ("toy_lib", "1", hashlib.sha256(GMT).hexdigest())
    about = registry.show("toy_lib", cache=tmp_path)
    assert (about["state"], about["n_entries"], about["licence"]) == ("cached", 2, "CC0")
    (folder / "lib.gmt").write_bytes(GMT + b"c\t\tQ\n")
    with pytest.raises(ScircuitError, match="no longer what was stored; fetch or add toy_lib again"):
        registry.load("toy_lib", cache=tmp_path)


@pytest.mark.parametrize(
    ("file", "sha256", "message"),
    [
        ("lib.gmt", "0" * 64, "does not have the checksum of Toy 1"),
        ("missing.gmt", None, "could not be downloaded"),
        ("cut.gmt", None, "could not be downloaded"),
        ("broken.gmt", None, "line 1 has no tab"),
    ],
)
def test_a_bad_download_leaves_nothing(known, tmp_path, file, sha256, message):
    known(file, sha256)
    with pytest.raises(ScircuitError, match=message):
        registry.fetch("toy_lib", cache=tmp_path)
    assert leftovers(tmp_path) == []
    with pytest.raises(ScircuitError, match="Toy is not in the cache; run `scircuit knowledge fetch toy_lib`"):
        registry.load("toy_lib", cache=tmp_path)


def test_a_failed_renewal_keeps_the_old_file(known, tmp_path):
    known("lib.gmt")
    registry.fetch("toy_lib", cache=tmp_path)
    known("broken.gmt")
    with pytest.raises(ScircuitError):
        registry.fetch("toy_lib", cache=tmp_path, again=True)
    assert len(registry.load("toy_lib", cache=tmp_path)) == 2
    assert leftovers(tmp_path) == ["toy_lib"]


def test_zip_archives(known, tmp_path):
    known("lib.zip", member="lib.gmt")
    registry.fetch("toy_lib", cache=tmp_path)
    assert len(registry.load("toy_lib", cache=tmp_path)) == 2
    known("lib.zip", member="other.gmt")
    with pytest.raises(ScircuitError, match=r"has no file other\.gmt"):
        registry.fetch("toy_lib", cache=tmp_path, again=True)
    known("lib.gmt", member="lib.gmt")
    with pytest.raises(ScircuitError, match="is no zip archive"):
        registry.fetch("toy_lib", cache=tmp_path, again=True)


def test_files_of_ones_own(tmp_path):
    path = tmp_path / "mine.gmt"
    path.write_bytes(GMT)
    registry.add("kegg", path, version="2021", cache=tmp_path)
    assert registry.load_gene_sets("kegg", cache=tmp_path).name == "kegg"
    assert registry.load_gene_sets(path).genes == registry.load("kegg", cache=tmp_path).genes
    assert registry.show("kegg", cache=tmp_path)["title"] == "KEGG pathways"
    table = tmp_path / "t.tsv"
    table.write_text("MYC\tX\tActivation\t1\n")
    registry.add("mine", table, kind="TRRUST", cache=tmp_path)
    assert isinstance(registry.load("mine", cache=tmp_path), Network)
    states = registry.list_sources(tmp_path).set_index("name")["state"]
    assert states[["programs", "kegg", "mine", "string", "open_targets"]].tolist() == [
        "packaged", "cached", "cached", "to fetch", "bring a file",
    ]  # fmt: skip
    with pytest.raises(ScircuitError, match="No regulator of TRRUST has 5 targets"):
        registry.load_gene_sets("mine", cache=tmp_path)


def test_regulators_and_diseases_are_gene_sets_and_links_are_not(tmp_path):
    table = tmp_path / "t.tsv"
    table.write_text("".join(f"MYC\tT{i}\t{'Activation' if i < 6 else 'Repression'}\t1\n" for i in range(12)))
    registry.add("trrust", table, cache=tmp_path)
    sets = registry.load_gene_sets("trrust", cache=tmp_path)
    assert {term: len(genes) for term, genes in sets.genes.items()} == {
        "MYC activates": 6, "MYC represses": 6, "MYC regulates": 12,
    }  # fmt: skip
    diseases = tmp_path / "d.csv"
    diseases.write_text("gene_symbol,disease_name,association_score\n" + "".join(f"G{i},flu,0.9\n" for i in range(4)))
    registry.add("open_targets", diseases, cache=tmp_path)
    assert registry.load_gene_sets("open_targets", cache=tmp_path).genes == {"flu": ("G0", "G1", "G2", "G3")}
    links = tmp_path / "s.tsv"
    links.write_text("gene_a\tgene_b\tcombined_score\nA\tB\t900\n")
    registry.add("string", links, cache=tmp_path)
    assert len(registry.load_network("string", cache=tmp_path)) == 1
    with pytest.raises(ScircuitError, match="string holds no gene sets"):
        registry.load_gene_sets("string", cache=tmp_path)
    with pytest.raises(ScircuitError, match="programs holds no network"):
        registry.load_network("programs", cache=tmp_path)


def test_refusals(tmp_path):
    good = tmp_path / "mine.gmt"
    good.write_bytes(GMT)
    bad = tmp_path / "bad.gmt"
    bad.write_text("nothing")
    for call, message in [
        (lambda: registry.fetch("go_bp_2032", cache=tmp_path), "did you mean go_bp_20"),
        (lambda: registry.load("Strng", cache=tmp_path), "did you mean string"),
        (lambda: registry.show("qqqqqqqqqq", cache=tmp_path), "known are go_bp_2021"),
        (lambda: registry.fetch("kegg", cache=tmp_path), "cannot be downloaded .*; bring your own GMT"),
        (lambda: registry.load("kegg", cache=tmp_path), "not in the cache; bring your own GMT"),
        (lambda: registry.add("mine", bad, cache=tmp_path), "line 1 has no tab"),
        (lambda: registry.add("mine", tmp_path / "no", cache=tmp_path), "does not exist"),
        (
            lambda: registry.add("mine", good, kind="soup", cache=tmp_path),
            "kind 'soup' is unknown; it may be gene sets",
        ),
        (lambda: registry.add("../evil", good, cache=tmp_path), "cannot name a source"),
        (lambda: registry.add("programs", good, cache=tmp_path), "cannot name a source"),
    ]:
        with pytest.raises(ScircuitError, match=message):
            call()
    assert leftovers(tmp_path) == []


def test_the_list_is_sound():
    for name, source in KNOWN.items():
        assert source.name == name
        assert source.reader in READERS
        assert source.licence
        assert source.files or "add" in source.note
        for remote in source.files:
            assert remote.url.startswith("https://")
            assert remote.sha256 is None or len(remote.sha256) == 64


def test_packaged_programs_are_always_there(tmp_path):
    assert len(registry.load("programs", cache=tmp_path)) >= 50
    assert registry.show("programs", cache=tmp_path)["state"] == "packaged"


@pytest.mark.skipif(not SHARED.exists(), reason="real data sets are not beside the project")
def test_real_files_offline(tmp_path):
    for name, file, n in [
        ("string", "networks/string_v12_ntm_700_symbols.tsv.gz", 131_520),
        ("trrust", "networks/trrust_rawdata.human.tsv", 8_403),
        ("clingen", "disease/clingen_formatted_2025-01.txt.gz", 2_446),
        ("go_bp_2021", "genesets/enrichr.GO_Biological_Process_2021.gmt", 6_036),
    ]:
        registry.add(name, SHARED / file, cache=tmp_path)
        assert len(registry.load(name, cache=tmp_path)) == n
    for name in ("trrust", "go_bp_2021"):  # these are the very files whose checksums are pinned
        shown = registry.show(name, cache=tmp_path)
        assert shown["files"][0]["sha256"] == KNOWN[name].files[0].sha256


def stored(folder: Path, **changes) -> Path:
    """A source in the cache whose record was changed by hand; its `source.json`."""
    (folder / "mine.gmt").write_bytes(GMT)
    record = registry.add("mine", folder / "mine.gmt", cache=folder) / "source.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, **changes}))
    return record


@pytest.mark.parametrize("name", ["../../evil", "..", ".", "", "a/../../evil", "/evil"])
def test_a_name_leads_nowhere(tmp_path, name):
    """A folder outside of the cache with a record in it is no source, whatever name leads there."""
    cache = tmp_path / "cache"
    evil = stored(tmp_path).parent.rename(tmp_path / "evil")
    assert (cache / "knowledge" / "../../evil" / "source.json").resolve() == evil / "source.json"
    for read in (registry.load, registry.show, registry.load_gene_sets, registry.load_network, registry.fetch):
        with pytest.raises(ScircuitError, match=r"no source called|does not exist"):
            read(name, cache=cache)


@pytest.mark.parametrize("file", ["../../secret.gmt", "/etc/hostname", "a\0b", ["x"], None])
def test_a_record_names_files_of_its_own_folder(tmp_path, file):
    (tmp_path / "secret.gmt").write_bytes(GMT)
    stored(tmp_path, files=[{"url": "", "file": file, "sha256": hashlib.sha256(GMT).hexdigest()}])
    with pytest.raises(ScircuitError, match=r"outside of it|is damaged"):
        registry.load("mine", cache=tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", "null", '{"files": 3}', '{"files": [1]}', "\0", "[" * 100_000]
)
def test_one_damaged_record_leaves_the_others_in_the_list(tmp_path, content):
    stored(tmp_path).write_text(content)
    registry.add("good", tmp_path / "mine.gmt", cache=tmp_path)
    table = registry.list_sources(tmp_path).set_index("name")
    assert table.loc[["good", "mine", "string"], "state"].tolist() == ["cached", "damaged", "to fetch"]
    assert "source.json" in table.loc["mine", "note"]
    with pytest.raises(ScircuitError, match=r"source\.json"):
        registry.load("mine", cache=tmp_path)
    registry.add("mine", tmp_path / "mine.gmt", cache=tmp_path)
    assert len(registry.load("mine", cache=tmp_path)) == 2
