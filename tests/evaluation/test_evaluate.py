"""The whole of `vqprior evaluate` on a tiny run."""

import json
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import TINY, write_pictures
from tests.launch import run_processes, start_process
from vqprior import CodeMaps, Generator
from vqprior.evaluation.parts import PARTS, archives
from vqprior.evaluation.parts.ladder import uneven_text
from vqprior.stage1_vqvae.classification import Labelled

FLAGS = ("--classifier_steps", 5, "--inference_batch", 4)


@pytest.fixture(scope="module")
def evaluated(finished_run, tmp_path_factory):
    """A finished tiny run with all its figures; tests must not change it."""
    run = tmp_path_factory.mktemp("evaluated") / "run"
    shutil.copytree(finished_run, run)
    assert run_processes(["evaluate", run, *FLAGS]).returncode == 0
    return run


def metrics(run) -> dict:
    return json.loads((run / "metrics.json").read_text())


def test_all_parts_are_in_the_metrics_and_in_the_table(evaluated, tmp_path, command):
    found = metrics(evaluated)
    assert {"stage1", "stage2", "ladder", "labels", "copies", "protocol"} <= set(found)
    assert [*found["ladder"]["rows"]] == [
        "train",
        "reconstructions",
        "samples",
        "per_position",
        "unigram",
        "uniform",
    ]
    assert found["ladder"]["distance"] == "FD(classifier)"
    for row in found["ladder"]["rows"].values():
        assert row["frechet"] >= 0 and all(
            0 <= row[share] <= 1 for share in ("precision", "recall", "coverage")
        )
    assert {*found["labels"]["cas"]} == {"train", "train_reconstructions", "samples"}
    assert len(found["stage2"]["bits_by_position"]) == 2 and 0 <= found["stage2"]["posterior_accuracy"] <= 1
    assert sum(map(sum, found["stage2"]["bits_by_position"])) == pytest.approx(
        found["stage2"]["bits_per_image"]
    )
    assert (
        -1 <= found["stage1"]["ssim"] <= 1
        and sum(found["stage1"]["code_counts"]) == 4 * found["stage1"]["images"]
    )
    assert Image.open(evaluated / "evaluation" / "nearest_pixels.png").size[0] > 16
    shutil.copytree(evaluated, tmp_path / "run")
    _, printed = command("evaluate", tmp_path / "run", *FLAGS)
    assert (
        "FD(classifier)" in printed and "FID" not in printed and "reconstructions of test images" in printed
    )


def test_parts_that_are_done_are_kept_and_the_others_measured(evaluated, tmp_path, command):
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    before = {
        path.name: path.stat().st_mtime_ns for path in (run / "evaluation").iterdir() if path.name != ".lock"
    }
    code, printed = command("evaluate", run, *FLAGS)
    assert code == 0 and printed.count("is done") == len(PARTS) and metrics(run) == metrics(evaluated)
    assert before == {
        path.name: path.stat().st_mtime_ns for path in (run / "evaluation").iterdir() if path.name != ".lock"
    }
    code, printed = command("evaluate", run, *FLAGS, "--only", "ladder", "--sample.seed", 5)
    assert code == 0 and "is done" not in printed
    old, new = metrics(evaluated)["ladder"]["rows"], metrics(run)["ladder"]["rows"]
    assert old["uniform"] == new["uniform"] and old["samples"] != new["samples"]
    assert metrics(run)["labels"] == metrics(evaluated)["labels"]


def test_from_nothing_again_the_figures_are_the_same_on_two_processes_too(evaluated, tmp_path):
    expected = metrics(evaluated)
    for processes in (1, 2):
        run = tmp_path / f"run{processes}"
        shutil.copytree(evaluated, run)
        shutil.rmtree(run / "evaluation")
        done = run_processes(["evaluate", run, *FLAGS], processes=processes, env={"TEST_REFERENCES": "4"})
        assert done.returncode == 0, done.stderr[-3000:]
        found = metrics(run)
        for part in ("ladder", "labels", "copies"):
            assert json.dumps(found[part]) == json.dumps(expected[part]), part
        assert found["stage2"]["bits_per_code"] == pytest.approx(
            expected["stage2"]["bits_per_code"], rel=1e-9
        )


def test_many_classes_take_few_images_for_the_posterior(finished_run, tmp_path, command, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    shutil.rmtree(run / "evaluation")
    # three maps, each with two classes
    monkeypatch.setattr("vqprior.evaluation.parts.likelihood.POSTERIOR", 7)
    assert command("evaluate", run, "--only", "likelihood")[0] == 0
    assert metrics(run)["stage2"]["posterior_images"] == 3


def test_data_without_classes_have_the_parts_that_they_can_have(tmp_path, command):
    pictures, run = write_pictures(tmp_path / "pictures", classes=()), tmp_path / "run"
    assert command("run", "folder", *TINY, "--data.root", pictures, "--out", run)[0] == 0
    code, printed = command("evaluate", run, *FLAGS)
    assert code == 0 and "no ladder without classes" in printed
    measured = {
        part.key_of_metrics for part in PARTS.values() if not (part.needs_labels or part.needs_features)
    }
    assert {*metrics(run)} == measured | {"protocol"} >= {"stage1", "stage2", "copies"}
    assert "features" not in metrics(run)["copies"]
    for part, said in (("labels", "needs classes"), ("ladder", "inception")):
        code, printed = command("evaluate", run, "--only", part)
        assert code == 2 and said in printed


def test_one_test_image_has_the_parts_that_it_can_have(tmp_path, command):
    """One alone has no covariance; it is what two dozen pictures may leave."""
    pictures, run = tmp_path / "pictures", tmp_path / "run"
    for split, count in (("train", 12), ("validation", 2), ("test", 1)):
        write_pictures(pictures / split, count)
    assert command("run", "folder", *TINY, "--data.root", pictures, "--out", run)[0] == 0
    code, printed = command("evaluate", run, *FLAGS)
    assert code == 0 and "no ladder: it needs 2 training and 2 test images" in printed, printed
    assert "ladder" not in metrics(run) and metrics(run)["labels"]["images"] == 1
    np.savez(tmp_path / "two.npz", images=np.zeros((2, 8, 8, 3), np.uint8))
    for flags in (("--only", "ladder"), ("--archives", tmp_path / "two.npz")):
        code, printed = command("evaluate", run, *FLAGS, *flags)
        assert code == 2 and "and these data have 12 and 1" in printed, printed


def test_features_that_do_not_exist_are_refused(finished_run, tmp_path, command):
    shutil.copytree(finished_run, tmp_path / "run")
    code, printed = command("evaluate", tmp_path / "run", "--features", "inception-v9", "--only", "ladder")
    assert code == 2 and (
        "there are no features 'inception-v9'" in printed or "pip install 'vqprior[eval]'" in printed
    )


def test_samples_from_elsewhere_are_measured_in_the_same_way(evaluated, tmp_path, command):
    """An archive of the run's own samples has the figures that the ladder and the labels have of them."""
    run, out = tmp_path / "run", tmp_path / "samples"
    shutil.copytree(evaluated, run)
    n = metrics(evaluated)["ladder"]["images"]
    assert command("sample", run, "--images", n, "--out", out)[0] == 0
    unlabelled = tmp_path / "unlabelled.npz"
    np.savez(unlabelled, arr_0=np.load(out / "samples.npz")["images"])
    code, printed = command("evaluate", run, *FLAGS, "--archives", out / "samples.npz", unlabelled)
    assert code == 0 and str(out / "samples.npz")[-43:] in printed
    found = metrics(run)
    labelled, plain = found["archives"][str(out / "samples.npz")], found["archives"][str(unlabelled)]
    for name, value in found["ladder"]["rows"]["samples"].items():
        assert labelled[name] == plain[name] == pytest.approx(value), name
    assert labelled["label_accuracy"] == found["labels"]["label_accuracy"]
    assert labelled["cas"] == found["labels"]["cas"]["samples"] and "cas" not in plain
    assert command("evaluate", run, *FLAGS, "--archives", unlabelled)[1].count("is done") == len(PARTS) + 1

    # Too few for five neighbours: as many as there are
    np.savez(tmp_path / "three.npz", images=np.load(out / "samples.npz")["images"][:3])
    assert command("evaluate", run, *FLAGS, "--archives", tmp_path / "three.npz")[0] == 0
    assert metrics(run)["archives"][str(tmp_path / "three.npz")]["images"] == 3

    # The same samples in two files are two rows
    shutil.copy(unlabelled, tmp_path / "twin.npz")
    assert command("evaluate", run, *FLAGS, "--archives", tmp_path / "twin.npz")[0] == 0
    assert (
        metrics(run)["archives"][str(tmp_path / "twin.npz")]
        == metrics(run)["archives"][str(unlabelled)]
        == plain
    )
    _, printed = command("evaluate", run, *FLAGS, "--archives", unlabelled, tmp_path / "twin.npz")
    assert printed.count("is done") == len(PARTS) + 2

    # Other samples in the same file take the place of those before
    np.savez(unlabelled, images=255 - np.load(out / "samples.npz")["images"])
    assert command("evaluate", run, *FLAGS, "--archives", unlabelled)[0] == 0
    assert metrics(run)["archives"][str(unlabelled)]["frechet"] != plain["frechet"]
    assert len([*(run / "evaluation").glob("archive-*.json")]) == 4
    assert metrics(run)["protocol"]["archives"][str(unlabelled)]["n"] == n


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (dict(images=np.zeros((4, 9, 8, 3), np.uint8)), "expected at least two, uint8 [N, 8, 8, 3]"),
        (dict(images=np.zeros((4, 8, 8, 3))), "float64"),
        (dict(images=np.zeros((4, 8, 8, 3), np.uint8), labels=np.zeros(3)), "one label for each"),
        (dict(images=np.zeros((4, 8, 8, 3), np.uint8), labels=np.full(4, 2)), "expected 0 to 1"),
        (dict(images=np.zeros((4, 8, 8, 3), np.uint8), labels=np.zeros(4)), "a whole number"),
        (dict(images=np.zeros((4, 8, 8, 3), np.uint8), labels=np.array(["ant"] * 4)), "a whole number"),
        (dict(pictures=np.zeros(3)), "not an archive of images"),
        (None, "is not a file"),
    ],
)
def test_archives_that_do_not_fit_are_refused(evaluated, tmp_path, command, content, said):
    run, file = tmp_path / "run", tmp_path / "other.npz"
    shutil.copytree(evaluated, run)
    if content:
        np.savez(file, **content)
    code, printed = command("evaluate", run, *FLAGS, "--archives", file)
    assert code == 2 and said in printed


def test_what_an_archive_lacks_is_refused_before_anything_is_measured(finished_run, tmp_path, command):
    """A wrong name had been refused after all parts, without metrics.json; so had data without classes."""
    run, flat, pictures = (tmp_path / name for name in ("run", "flat", "pictures"))
    shutil.copytree(finished_run, run)
    write_pictures(pictures, 40, classes=())
    assert command("run", "folder", *TINY, "--data.root", pictures, "--out", flat)[0] == 0
    missing, of_samples = tmp_path / "no.npz", run / "samples" / "samples.npz"
    large, mixed = tmp_path / "large.npz", tmp_path / "mixed.npz"
    np.savez(large, images=np.zeros((4, 9, 9, 3), np.uint8))
    np.savez(mixed, images=np.zeros((4, 8, 8, 3), np.uint8), labels=np.array([0, 1, 1, -1]))
    for measured, file, said in (
        (run, missing, "not a file"),
        (flat, of_samples, "need classes"),
        (run, large, "expected at least two, uint8 [N, 8, 8, 3]"),
        (run, mixed, "labels from -1 to 1; expected 0 to 1"),
    ):
        shutil.rmtree(measured / "evaluation")
        code, printed = command("evaluate", measured, *FLAGS, "--archives", file)
        assert code == 2 and said in printed, printed
        assert [path.name for path in (measured / "evaluation").iterdir()] == [".lock"]


def test_an_array_without_a_name_is_no_archive(evaluated, tmp_path, command):
    shutil.copytree(evaluated, tmp_path / "run")
    row = next((tmp_path / "run" / "evaluation").glob("samples-*.npy"))
    code, printed = command("evaluate", tmp_path / "run", *FLAGS, "--archives", row)
    assert code == 2 and "not an archive of images" in printed


def test_samples_without_classes_are_measured_beside_those_with(evaluated, tmp_path, command):
    """Labels of -1 are what `sample` writes where no class was told."""
    run, n = tmp_path / "run", metrics(evaluated)["ladder"]["images"]
    shutil.copytree(evaluated, run)
    images = np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "none.npz", images=images, labels=np.full(n, -1), label_names=["ant", "bee"])
    code, printed = command("evaluate", run, *FLAGS, "--archives", tmp_path / "none.npz")
    assert code == 0, printed
    assert np.load(tmp_path / "none.npz")["labels"].min() == -1
    (found,) = metrics(run)["archives"].values()
    assert found["frechet"] > 0 and "label_accuracy" not in found


def test_of_a_large_archive_images_of_all_classes_are_measured(evaluated, tmp_path, command, monkeypatch):
    """Archives may be sorted by class; the first images are then of one alone."""
    run, n = tmp_path / "run", metrics(evaluated)["ladder"]["images"]
    shutil.copytree(evaluated, run)
    labels = np.arange(4 * n) // (2 * n)  # more of the first class than are measured
    images = np.full((4 * n, 8, 8, 3), 60, np.uint8) + (labels * 100).astype(np.uint8)[:, None, None, None]
    np.savez(tmp_path / "sorted.npz", images=images, labels=labels)
    learnt: list[Labelled] = []
    real = archives.Labelled
    monkeypatch.setattr(archives, "Labelled", lambda *of: learnt.append(real(*of)) or learnt[-1])
    code, printed = command("evaluate", run, *FLAGS, "--archives", tmp_path / "sorted.npz")
    assert code == 0, printed
    (own,) = learnt
    assert own.labels.unique().tolist() == [0, 1] and len(own.labels) == n
    assert torch.equal(own.images(torch.arange(n))[:, 0, 0, 0] == 160, own.labels == 1)


def test_samples_of_one_class_are_not_compared_with_all(evaluated, tmp_path, command):
    """Refused before anything is measured."""
    shutil.copytree(evaluated, tmp_path / "run")
    code, printed = command("evaluate", tmp_path / "run", *FLAGS, "--sample.label", "bee", "--images", 3)
    assert code == 2 and '--sample.label ""' in printed and metrics(tmp_path / "run") == metrics(evaluated)
    code, printed = command("evaluate", tmp_path / "run", *FLAGS, "--only", "copies", "--sample.label", "bee")
    assert code == 0, printed


def test_samples_are_of_the_test_images_classes_if_asked(evaluated, tmp_path, command):
    """Image i of the row is what the prior draws for the class of test image i."""
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    asked = ("evaluate", run, *FLAGS, "--images", 5, "--classes", "test", "--only")
    code, printed = command(*asked, "ladder", "labels")
    assert code == 0 and "; samples of their classes" in printed
    labels = CodeMaps(run / "codes").split("test").labels[:5].tolist()
    assert labels != [i % 2 for i in range(5)]
    [row] = (run / "evaluation").glob("samples-*.npy")
    images = Generator.from_run(run).sample(labels=labels, seed=0)
    assert np.array_equal(np.load(row).transpose(0, 2, 3, 1), images)
    assert metrics(run)["ladder"]["rows"]["samples"] != metrics(evaluated)["ladder"]["rows"]["samples"]
    code, printed = command(*asked, "copies", "--sample.label", "bee")
    assert code == 2 and "asks for one class" in " ".join(printed.split())
    code, printed = command(*asked, "likelihood")
    assert code == 2 and "--classes is for ladder, labels, copies" in " ".join(printed.split())


def test_uneven_classes_of_the_test_images_are_said():
    uneven = {"classes": "even", "test_classes": [0.05, 0.4]}
    assert "40.0% are of the commonest and 5.0% of the rarest" in uneven_text(uneven)
    assert uneven_text({"classes": "even", "test_classes": [0.09, 0.11]}) == uneven_text({}) == ""
    assert uneven_text(uneven | {"classes": "test"}) == ""


def test_each_part_says_what_measured_it(evaluated, tmp_path, command):
    """A part that is kept was measured by the code and the number of threads of its day."""
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    part = json.loads((run / "evaluation" / "ladder.json").read_text())
    part["by"]["commit"] = "of long ago"
    (run / "evaluation" / "ladder.json").write_text(json.dumps(part))
    assert command("evaluate", run, *FLAGS, "--only", "reconstruction")[0] == 0
    protocol = metrics(run)["protocol"]
    assert (
        protocol["parts"]["ladder"]["by"]["commit"]
        == "of long ago"
        != protocol["parts"]["labels"]["by"]["commit"]
    )
    names = ("version", "commit", "torch", "threads", "device", "device_name", "fp32_precision")
    assert protocol["parts"]["labels"]["by"] == {name: protocol[name] for name in names}


def test_a_damaged_archive_is_refused(evaluated, tmp_path, command):
    shutil.copytree(evaluated, tmp_path / "run")
    file = tmp_path / "other.npz"
    np.savez_compressed(file, images=np.random.default_rng(0).integers(0, 9, (40, 8, 8, 3), np.uint8))
    content = bytearray(file.read_bytes())
    content[200:264] = bytes(64)
    file.write_bytes(content)
    code, printed = command("evaluate", tmp_path / "run", *FLAGS, "--archives", file)
    assert code == 2 and "not an archive of images" in printed


def test_a_signal_ends_it_at_once_and_what_is_done_stays(finished_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    only = ("--inference_batch", 4, "--only", "likelihood", "labels")
    process = start_process(["evaluate", run, *only, "--classifier_steps", 10**6])
    for line in process.stdout:
        if "train a classifier" in line:
            break
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM
    done = run_processes(["evaluate", run, *only, "--classifier_steps", 5])
    assert done.returncode == 0 and "likelihood is done" in done.stdout and "labels" in metrics(run)


def test_what_another_precision_or_other_weights_measured_is_left_out_and_named(evaluated, tmp_path, command):
    """It had gone from metrics.json without a word."""
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    code, printed = command("evaluate", run, *FLAGS, "--only", "likelihood", "--precision", "bf16")
    others = "reconstruction, ladder, labels, copies, verification, code_copies"
    assert code == 0 and {*metrics(run)} == {"stage2", "protocol"}
    assert f"measured before, with --precision no, where this is with bf16: {others}" in printed, printed
    code, printed = command("evaluate", run, *FLAGS, "--only", "reconstruction")
    assert code == 0 and "with --precision bf16, where this is with no: likelihood" in printed, printed
    assert {*metrics(evaluated)} - {*metrics(run)} == {"stage2"}

    file = run / "evaluation" / "likelihood.json"
    file.write_text(file.read_text().replace('"prior": "', '"prior": "0'))
    code, printed = command("evaluate", run, *FLAGS, "--only", "reconstruction")
    assert code == 0 and "measured before, of other weights or pictures: likelihood" in printed, printed


def test_what_takes_long_says_how_far_it_is(evaluated, tmp_path, command, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    for name in ("reconstruction", "likelihood", "ladder"):
        (run / "evaluation" / f"{name}.json").unlink()
    monkeypatch.setattr("vqprior.runtime.progress.EVERY", 0.0)
    code, printed = command("evaluate", run, *FLAGS)
    assert code == 0 and "\nevaluate: measure ladder\n" in printed, printed
    for name in ("reconstructions", "bits", "bits on train", "ladder"):
        assert f"\n{name}: 1 of " in printed, (name, printed)


def test_what_another_version_measured_or_an_export_had_is_left_out_and_named(evaluated, tmp_path, command):
    """It had gone from metrics.json without a word."""
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    for name in ("labels", "copies"):
        file = run / "evaluation" / f"{name}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"asked": {"format": 3}}))
    (run / "evaluation" / "ladder.json").unlink()
    code, printed = command("evaluate", run, *FLAGS, "--only", "likelihood")
    assert code == 0 and "measured before, by another version of vqprior: labels, copies" in printed, printed
    assert f"measured before, and is not in {run / 'evaluation'}: ladder" in printed, printed
    assert {*metrics(evaluated)} - {*metrics(run)} == {"labels", "copies", "ladder"}


def test_stage_one_alone_is_measured_before_there_are_codes_and_a_prior(evaluated, tmp_path, command):
    """As before hours of stage two; the figures are those that it has with them."""
    run = tmp_path / "run"
    shutil.copytree(evaluated, run)
    shutil.rmtree(run / "evaluation")
    assert command("evaluate", run, *FLAGS, "--only", "reconstruction", "code_copies")[0] == 0
    whole = metrics(run)
    for name in ("codes", "stage2", "evaluation"):
        shutil.rmtree(run / name)
    code, printed = command("evaluate", run, *FLAGS, "--only", "reconstruction")
    assert code == 0 and printed.endswith(f"next: vqprior encode {run}\n"), printed
    found = metrics(run)
    assert found["stage1"] == whole["stage1"] and {*found} == {"stage1", "protocol"}
    assert found["protocol"]["prior"] is None and found["protocol"]["images"] == found["stage1"]["images"]
    assert "PSNR" in command("ls", run)[1]
    for flags in ((), ("--only", "reconstruction", "likelihood")):
        code, printed = command("evaluate", run, *FLAGS, *flags)
        assert code == 2 and "there are no code maps" in printed, printed

    # With codes and a prior the figures are of all networks, and those of stage one stay
    assert command("encode", run)[0] == command("train-prior", run)[0] == 0
    code, printed = command("evaluate", run, *FLAGS, "--only", "likelihood")
    assert code == 0 and "left out" not in printed and metrics(run)["protocol"]["prior"], printed
    assert metrics(run)["stage1"] == whole["stage1"]
    assert "reconstruction is done" in command("evaluate", run, *FLAGS, "--only", "reconstruction")[1]
    shutil.rmtree(run / "codes")
    code, printed = command("evaluate", run, *FLAGS, "--only", "reconstruction")
    assert code == 0 and "is done" in printed and printed.endswith(f"next: vqprior encode {run}\n"), printed
