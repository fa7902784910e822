"""Which files under a folder are pictures."""

import os

import pytest

from tests.conftest import colour, write_pictures
from tests.sources import opened, refused


def test_each_real_folder_is_visited_once(tmp_path):
    root = write_pictures(tmp_path / "pictures", 40)
    (root / "ant" / "up").symlink_to(root)
    (root / "aaa").symlink_to(root / "bee")
    (root / "above").symlink_to(tmp_path)
    source = opened(root)
    assert len(source.train) == 40 and source.label_names == ("ant", "bee")
    assert source.left_out == {"links to folders that are listed already": 3}
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("ant", "bee"):
        (linked / name).symlink_to(root / name)
    assert len(opened(linked).train) == 40 and opened(linked).label_names == ("ant", "bee")


def test_what_is_no_data_is_left_out_and_counted(tmp_path):
    write_pictures(tmp_path, 4)
    ours = ("begun", "cache", "completions", "marked", "run", "samples", "scores")
    contents = {
        "run.json": '{"format": 1, "starts": []}',
        "samples.json": '{"prior": "", "seed": 0, "top_p": 1}',
        "completions.json": '{"prior": "", "codes_drawn": 3}',
        "scores.json": '{"quantile": 0.99, "restorations": 4}',
    }
    for folder, files in {
        "run": ("config.yaml", "run.json", "figure.png"),
        "samples": ("samples.json", "0.png"),
        "begun": (".unfinished", "0.png"),
        "completions": ("completions.json", "0.png"),
        "scores": ("scores.json", "0.png"),
        "cache": ("CACHEDIR.TAG", "0.png"),
        "marked": (".vqprior", "0.png"),
        ".thumbs": ("0.png",),
    }.items():
        (tmp_path / folder).mkdir()
        for name in files:
            (tmp_path / folder / name).write_text(contents.get(name, ""))
    for name in ("a.txt", "b.TXT", "README", ".hidden.png"):
        (tmp_path / "ant" / name).touch()
    os.mkfifo(tmp_path / "ant" / "pipe.png")
    source = opened(tmp_path)
    assert len(source.train) == 4 and source.label_names == ("ant", "bee")
    assert source.left_out == {
        **{f"folder that vqprior wrote ({name})": 1 for name in ours},
        "hidden": 2,
        "ending .txt": 2,
        "without an ending": 1,
        "no regular files": 1,
    }


def test_folders_without_pictures_are_named(tmp_path):
    write_pictures(tmp_path, 6)
    (tmp_path / "cow" / "raw").mkdir(parents=True)
    (tmp_path / "cow" / "raw" / "1.cr2").write_bytes(b"x")
    (tmp_path / "ant" / "deep").mkdir()
    assert opened(tmp_path).left_out == {"ending .cr2": 1, "folders without pictures (ant/deep, cow)": 2}
    (tmp_path / "ant" / "deep").rmdir()
    assert opened(tmp_path).left_out["folder without pictures (cow)"] == 1


@pytest.mark.parametrize(
    ("ending", "words"), [("parquet", "--data.source parquet"), ("zip", "unpack"), ("txt", "in sub-folders")]
)
def test_where_there_are_no_pictures_it_is_said_what_may_be_meant(tmp_path, ending, words):
    (tmp_path / f"pictures.{ending}").write_bytes(b"x")
    refused(tmp_path, f"1 ending .{ending}", words)


@pytest.mark.parametrize("ending", ["png", "txt"])
def test_a_link_to_itself_is_no_folder(tmp_path, ending):
    write_pictures(tmp_path, 4, ())
    os.symlink(f"loop.{ending}", tmp_path / f"loop.{ending}")
    source = opened(tmp_path)
    assert (len(source.train), source.left_out) == ((5, {}) if ending == "png" else (4, {"ending .txt": 1}))


def test_the_root_itself_may_be_a_folder_of_samples(tmp_path):
    write_pictures(tmp_path, 4, ())
    (tmp_path / "samples.json").touch()
    assert len(opened(tmp_path).train) == 4


def test_file_names_that_are_no_utf8(tmp_path):
    colour(0).save(tmp_path / "good.png")
    name = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")
    os.link(tmp_path / "good.png", name)
    source = opened(tmp_path)
    assert source.train.keys == ["caf\\xe9.png", "good.png"]
    assert source.train.reader.where(0).encode().endswith(b"caf\\xe9.png")
    assert source.train.reader.content(0) == (tmp_path / "good.png").read_bytes()


def test_endings(tmp_path):
    for ending in ("jfif", "jpe", "avif", "npy", "HEIC"):
        (tmp_path / f"a.{ending}").write_bytes(b"x")
    source = opened(tmp_path)
    try:
        import pillow_heif  # noqa: F401
    except ImportError:
        assert len(source.train) == 4 and source.left_out == {"ending .heic (pip install pillow-heif)": 1}
    else:
        assert len(source.train) == 5


def test_metadata_of_others_beside_pictures_hides_none(tmp_path):
    """samples.json is a name of other programs too."""
    write_pictures(tmp_path, 4)
    (tmp_path / "ant" / "samples.json").write_text('{"samples": []}')
    (tmp_path / "bee" / "run.json").write_text("no JSON")
    source = opened(tmp_path)
    assert len(source.train) == 4 and source.label_names == ("ant", "bee")


def test_folders_of_network_drives_and_systems_are_no_data(tmp_path):
    """Of a Synology's thumbnails some would be in other splits than the pictures that they are of."""
    write_pictures(tmp_path, 4)
    write_pictures(tmp_path / "ant", 2, ("@eaDir/picture0.png",))
    write_pictures(tmp_path, 2, ("__MACOSX",))
    source = opened(tmp_path)
    assert len(source.train) == 4 and source.label_names == ("ant", "bee")
    assert source.left_out == {"named @eaDir": 1, "named __MACOSX": 1}
