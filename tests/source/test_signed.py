"""Signed links: sent as they are written, known by what is not secret in them, and stored without the rest."""

import pickle
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.durable.seal import write_sealed_json
from pipeline.errors import InputError
from pipeline.planning.batches import batches_of, credentials_of
from pipeline.planning.shards import listing_hash
from pipeline.settings.store import VerifySettings
from pipeline.source import secrets
from pipeline.source.access import location
from pipeline.source.access.credentials import KEYRING, Keyring
from pipeline.source.access.remote import as_sent
from pipeline.source.entry import ImageEntry
from pipeline.source.reading import read_file, read_image
from pipeline.source.secrets import scrubbed, without_credentials
from pipeline.store.lists import EntryWriter
from pipeline.store.view import StoreView
from pipeline.verify import verify
from tests.kit.jobs import Job
from tests.kit.signed_links import Site, assert_nothing_secret_in, serving_signed, signed
from tests.kit.sources import listed, record_of, tar_of
from tests.kit.web_server import Handler, serving


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No waiting, and neither servers nor credentials of earlier tests."""
    monkeypatch.setattr(location, "RETRY_WAITS_S", (0.01,))
    location._filesystem.cache_clear()
    location._silent_sites.clear()
    KEYRING.clear()
    yield
    location._filesystem.cache_clear()
    KEYRING.clear()


@pytest.fixture
def site():
    with serving_signed() as url:
        yield url


# --- what is sent


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("/a%2fb%2F%7Ec.jpg", "/a%2fb%2F%7Ec.jpg"),
        ("/a.jpg?x=%2B+%20%3d&y=a/b:c@d", "/a.jpg?x=%2B+%20%3d&y=a/b:c@d"),
        ("/a b.jpg", "/a%20b.jpg"),
        ("/100%.jpg?x=5%", "/100%25.jpg?x=5%25"),
        ("/å%C3%A5.jpg", "/%C3%A5%C3%A5.jpg"),
        ('/<"|^`{}>\\.jpg', "/%3C%22%7C%5E%60%7B%7D%3E%5C.jpg"),
        ("/a.jpg#part", "/a.jpg"),
        ("/a;b,c=d!e'f(g)*~$&.jpg", "/a;b,c=d!e'f(g)*~$&.jpg"),
        ("?x=1", "?x=1"),
    ],
)
def test_only_what_may_not_stand_in_a_url_is_escaped(written, sent):
    assert as_sent(f"http://host:80{written}") == f"http://host:80{sent}"


def test_hosts_that_are_not_ascii():
    assert as_sent("https://bücher.example/ä") == "https://xn--bcher-kva.example/%C3%A4"


@pytest.mark.parametrize("target", ["/a%2Fb%7e%20c+d.jpg", "/a.jpg?id=7%2C8&v=a+b", "/%C3%A5.jpg", "/a:b@c.jpg"])
def test_signed_links_are_answered(site, target):
    Site.files[target] = b"image"
    url = KEYRING.take(signed(site, target))
    assert url == f"{site}{target}"
    assert read_image(url) == b"image"
    with location.open_stream(url) as stream:
        assert stream.read() == b"image"
    assert location.examine(url)[0] == 5
    assert {path.split("X-Amz")[0].rstrip("?&") for path in Site.seen} == {target}


def test_redirects_to_signed_links_are_followed_as_written(site):
    Site.files |= {"/a%2Fb%7Ec.jpg": b"image", "/moved": signed("", "/a%2Fb%7Ec.jpg"), "/moved2": "/x y.jpg"}
    assert read_image(f"{site}/moved") == b"image"
    with pytest.raises(OSError, match="403"):
        read_image(f"{site}/moved2")
    assert Site.seen[-1] == "/x%20y.jpg"


# --- what is secret


@pytest.mark.parametrize(
    "name",
    "X-Amz-Signature X-Amz-Security-Token X-Goog-Signature AWSAccessKeyId Signature Expires Policy Key-Pair-Id sig se "
    "sp sv sr st token access_token x-amz-date".split(),
)
def test_every_parameter_of_the_list_is_taken_out(name):
    for url, bare in (
        (f"https://h/a.jpg?{name}=1", "https://h/a.jpg"),
        (f"https://h/a.jpg?id=7&{name}=%2F&x", "https://h/a.jpg?id=7&x"),
        (f"https://h/0.tar?{name}=1#member=a.jpg", "https://h/0.tar#member=a.jpg"),
    ):
        assert without_credentials(url) == bare
        assert scrubbed(f"cannot read '{url}': no") == f"cannot read '{bare}': no"


@pytest.mark.parametrize(
    "url",
    [
        "https://h/a.jpg?id=7&size=token&tokens=1&signatures=2",
        "https://h/a.jpg?ss=1",
        "https://h/sig=1/a.jpg",
        "https://user@h/a.jpg",
        "s3://bucket/a?token=1",
        "/photos/a.jpg?token=1",
        "file:///a%3Ftoken=1",
        "abfs://container@account/a.jpg",
    ],
)
def test_everything_else_stays(url):
    assert without_credentials(url) == url


def test_passwords_and_the_companions_of_azures_signatures():
    assert without_credentials("https://me:pass@h:80/a@b.jpg?id=1") == "https://h:80/a@b.jpg?id=1"
    assert without_credentials("s3://key:secret@bucket/a:b@c") == "s3://bucket/a:b@c"
    assert without_credentials("https://h/a?ss=b&srt=o&skoid=1&sig=2&id=3") == "https://h/a?id=3"


def test_every_name_of_the_list_is_in_lower_case():
    names = {*secrets.NAMES, *secrets.NAMES_BESIDE_SIG, *secrets.PREFIXES}
    assert names == {name.lower() for name in names}


def test_a_keyring():
    keyring = Keyring()
    assert not keyring
    assert keyring.signed("https://h/a") == "https://h/a"
    many = {f"https://h/{number}.jpg": f"https://h/{number}.jpg?token={number}" for number in range(2000)}
    assert [keyring.take(url) for url in many.values()] == list(many)
    assert keyring.take("https://h/0.jpg?token=newer") == "https://h/0.jpg"
    assert keyring.signed("https://h/0.jpg#x") == "https://h/0.jpg?token=newer"
    assert keyring.signed("https://h/7.jpg?token=stale") == "https://h/7.jpg?token=7"
    assert keyring.of(list(many)[1:]) == dict(list(many.items())[1:])
    assert keyring.signed("https://h/none.jpg") == "https://h/none.jpg"
    keyring.clear()
    assert keyring.of(many) == {}
    assert pickle.loads(pickle.dumps(KEYRING)) is KEYRING


# --- sources


def write_list(tmp_path, site, targets, number=1):
    path = tmp_path / "list.csv"
    rows = (f"{signed(site, target, number)},caption of {target}" for target in targets)
    path.write_text("\n".join(["url,caption", *rows]) + "\n")
    return path


def test_a_list_of_signed_links(site, tmp_path, spec):
    targets = ["/a%2F1.jpg", "/b.jpg?id=7", "/c.jpg?id=8"]
    Site.files |= {target: target.encode() for target in targets}
    listing = listed(write_list(tmp_path, site, targets), columns={"url": ""})
    assert Site.seen == []
    assert [(entry.key, entry.uri) for entry in listing] == [(f"{site}{target}",) * 2 for target in targets]
    assert [entry.extra for entry in listing] == [{"url": f"{site}{target}"} for target in targets]
    assert listing.source.is_signed
    job = Job(tmp_path / "store", spec)
    assert len(job.run(tmp_path / "list.csv")) == 3
    assert all(job.living.values())
    write_list(tmp_path, site, targets, number=2)
    assert len(job.run(tmp_path / "list.csv")) == 3  # a new signature is not a new image
    assert len(job.record.plans) == 1
    assert_nothing_secret_in(tmp_path / "store")


def test_signed_tars_and_lists_are_recognised_by_their_path(site, tmp_path, spec):
    Site.files |= {"/set/0.tar": tar_of({"a.jpg": b"A"}), "/set/0.tar?x=y": tar_of({"b.jpg": b"B"})}
    Site.files |= {"/set/list.csv?raw=1&path=/x/y": b"path\na.jpg\n../b.jpg?id=7\n"}
    for target, keys in (("/set/0.tar", ["0.tar/a.jpg"]), ("/set/0.tar?x=y", ["0.tar?x=y/b.jpg"])):
        listing = listed(signed(site, target))
        assert (listing.source.format, listing.source.location) == ("webdataset", f"{site}{target}")
        entries = list(read_file(listing.files[0], listing.source, 0, 0))
        assert [entry.key for entry in entries] == keys
        assert [read_image(entry.uri) for entry in entries] == [entry.data for entry in entries]
    listing = listed(signed(site, "/set/list.csv?raw=1&path=/x/y"))
    assert [entry.uri for entry in listing] == [f"{site}/b.jpg?id=7", f"{site}/set/a.jpg"]
    job = Job(tmp_path / "store", spec)
    for number in (1, 2):
        assert list(job.run(signed(site, "/set/0.tar?x=y", number))) == ["0.tar?x=y/b.jpg"]
    assert len(job.record.plans) == 1
    assert_nothing_secret_in(tmp_path / "store")


def test_a_pattern_of_signed_tars(site):
    # one signature for a whole folder, as Azure gives them
    class Folder(Site):
        def look(self, path):
            name, _, token = path.partition("?")
            return (200, tar_of({f"{name[1]}.jpg": b"x"})) if token == "sig=s%2Bs&sv=1" else (403, b"")

    with serving(Folder) as url:
        listing = listed(f"{url}/{{0..2}}.tar?sig=s%2Bs&sv=1")
        assert [file.key for file in listing.files] == ["0.tar", "1.tar", "2.tar"]
        assert [file.uri for file in listing.files] == [f"{url}/{number}.tar" for number in range(3)]


def test_links_inside_parquet_files(site, tmp_path, spec):
    Site.files |= {"/a%20b.jpg": b"A"}
    pq.write_table(pa.table({"url": [signed(site, "/a%20b.jpg")]}), tmp_path / "0.parquet")
    job = Job(tmp_path / "store", spec)
    job.run(tmp_path / "0.parquet", key_column="url", columns={"url": ""})
    assert list(job.living) == [f"{site}/a%20b.jpg"]
    assert all(job.living.values())
    assert_nothing_secret_in(tmp_path / "store")


def test_a_password_holds_for_a_whole_server(tmp_path):
    class Locked(Handler):
        def look(self, path):
            allowed = self.headers["Authorization"] == "Basic bWU6cGFzcw=="
            return (200, tar_of({"a.jpg": path.encode()})) if allowed else (401, b"")

    with serving(Locked) as url:
        listing = listed(f"{url.replace('//', '//me:pass@')}/0.tar")
        assert (listing.source.location, listing.files[0].uri) == (f"{url}/0.tar", f"{url}/0.tar")
        [entry] = read_file(listing.files[0], listing.source, 0, 0)
        assert entry.data == b"/0.tar"


# --- what workers and later runs need


def test_workers_get_the_credentials_of_their_shard(site, tmp_path, spec, monkeypatch):
    targets = [f"/{number}.jpg" for number in range(7)]
    job = Job(tmp_path / "store", spec)
    record = job.plan(write_list(tmp_path, site, targets))
    for shard in record.shards:
        uris = [entry.uri for batch in batches_of(shard, record, job.store) for entry in batch]
        handed = credentials_of(shard, record, job.store)
        assert handed == {uri: signed(site, uri.removeprefix(site)) for uri in uris}
    Site.files["/0.tar"] = tar_of({"a.jpg": b"A"})
    other = Job(tmp_path / "other", spec)
    record = other.plan(signed(site, "/0.tar"))
    assert credentials_of(record.shards[0], record, other.store) == {f"{site}/0.tar": signed(site, "/0.tar")}
    KEYRING.clear()
    assert credentials_of(record.shards[0], record, other.store) == {}


def test_reading_without_credentials_is_refused_before_it_starts(site, tmp_path, spec):
    targets = [f"/{number}.jpg" for number in range(7)]
    Site.files |= {target: b"x" for target in targets}
    job = Job(tmp_path / "store", spec)
    job.plan(write_list(tmp_path, site, targets))
    job.commit(1)
    KEYRING.clear()
    (tmp_path / "list.csv").write_text("\n".join(["url,caption", *(f"{site}{t},caption of {t}" for t in targets)]))
    message = r"links of .*list.csv were signed .* does not hold credentials; .* pass a list with fresh signed links"
    with pytest.raises(InputError, match=message):
        job.plan(tmp_path / "list.csv")
    write_list(tmp_path, site, targets, number=2)
    job.run(tmp_path / "list.csv")
    assert all(job.living.values())
    (tmp_path / "list.csv").write_text("\n".join(["url,caption", *(f"{site}{t},caption of {t}" for t in targets)]))
    job.plan(tmp_path / "list.csv")  # nothing is to be read
    with pytest.raises(InputError, match=message):
        job.plan(tmp_path / "list.csv", check=True)


def test_a_refusal_names_no_credentials(site, tmp_path):
    url = f"{site}/a.jpg?token=abcdef&id=7"
    record = record_of(KEYRING.take(url))
    assert (record.status, record.error) == ("unreadable", "403 Forbidden")
    for source in (f"{site}/0.tar?token=abcdef", f"{site}/list.csv?token=abcdef", f"{site}/x?token=abcdef"):
        with pytest.raises(InputError, match=r"403|do not list folders") as caught:
            listed(source)
        assert "abcdef" not in str(caught.value)
        assert "\n" not in str(caught.value)


def test_links_that_differ_only_in_credentials_are_refused(site, tmp_path):
    """One of them would be read for both, without a word."""
    rows = "".join(f"{number},{site}/a.jpg?st={number}\n" for number in (1, 2))
    (tmp_path / "list.csv").write_text(f"id,url\n{rows}")
    with pytest.raises(InputError, match=r"two links differ from .*/a.jpg only in parameters that count"):
        listed(tmp_path / "list.csv", key_column="id")
    (tmp_path / "list.csv").write_text(f"id,url\n1,{site}/a.jpg?st=1\n2,{site}/a.jpg?st=1\n")
    assert listed(tmp_path / "list.csv", key_column="id").num_images == 2
    (tmp_path / "list.csv").write_text(f"id,url\n1,{site}/a.jpg?st=2\n")
    assert listed(tmp_path / "list.csv", key_column="id").num_images == 1  # a new signature in a new list


# --- earlier stores


def test_earlier_plans_match_without_their_credentials(site, tmp_path, spec, monkeypatch):
    # an earlier plan has the whole links, as keys too; its order of keys changes without the credentials
    targets = ["/a.jpg", "/a.jpg.bak.jpg", "/b.jpg?id=7"]
    Site.files |= {target: target.encode() for target in targets}
    job = Job(tmp_path / "store", spec)
    whole = {without_credentials(signed(site, target)): signed(site, target) for target in targets}

    def write_whole(self, entries):
        urls = sorted(whole[entry.uri] for entry in entries)
        write(self, [ImageEntry(url, url, 0, 0, caption="c") for url in urls])

    write = EntryWriter.write
    with monkeypatch.context() as earlier:
        earlier.setattr(EntryWriter, "write", write_whole)
        record = job.plan(write_list(tmp_path, site, targets))
    written = record.plans[0].model_dump(mode="json")
    del written["source"]["is_signed"], written["text_rules"]
    [shard] = written["shards"]
    shard["shard_id"] = listing_hash(job.store.entries_of(record.plans[0]))
    write_sealed_json(job.store.plan_dir / "00000.json", written)
    write_list(tmp_path, site, targets, number=2)
    KEYRING.clear()
    job.plan(tmp_path / "list.csv", on_change="keep")
    assert len(job.record.plans) == 1
    view = StoreView.now(job.store, job.record)
    entries = [entry for shard in view.missing for batch in batches_of(shard, job.record, job.store) for entry in batch]
    assert {entry.uri for entry in entries} == {entry.key for entry in entries} == set(whole)  # new rows have none
    for entry in entries:
        read_image(entry.uri)
    assert all("X-Amz-Date=2" in path for path in Site.seen)  # the fresh ones are sent
    job.commit()
    assert verify(VerifySettings(store=job.store.root)).findings == []
    assert_nothing_secret_in(job.store.embeddings_dir)


def test_earlier_plans_of_signed_tars_match(site, tmp_path, spec):
    Site.files["/0.tar"] = tar_of({"a.jpg": b"A"})
    job = Job(tmp_path / "store", spec)
    record = job.plan(signed(site, "/0.tar"))
    plan, url = record.plans[0], signed(site, "/0.tar")
    earlier = plan.model_dump(mode="json")
    earlier["source"]["location"] = earlier["shards"][0]["file"]["uri"] = url
    earlier["shards"][0]["file"]["key"] = f"0.tar?{url.partition('?')[2]}"
    assert type(plan).model_validate(earlier) == plan


def test_urlencoded_parameters_survive():
    query = urlencode({"path": "/a b&c", "token": "x", "q": "1+1"})
    assert without_credentials(f"https://h/i?{query}") == "https://h/i?path=%2Fa+b%26c&q=1%2B1"
