"""A command writes neither where it would be lost nor over what others made."""

import os

import pytest

from cluster.engine import places
from cluster.engine.run import Run


def test_a_relative_path_in_a_ray_job_is_refused(monkeypatch, tmp_path, configure):
    monkeypatch.chdir(tmp_path)
    assert places.writable("runs", "root") == tmp_path / "runs"
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ValueError, match=r"root: expected an absolute path inside of a Ray job, got 'runs'"):
        Run(configure("runs"), {})
    assert places.writable(str(tmp_path / "runs"), "root") == tmp_path / "runs"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("path", "remedy"),
    [("s3://bucket/runs", "mount it"), ("file:///runs", "mount it"), ("~/runs", "write \\$HOME"), ("a\0b", "mount it")],
)
def test_what_is_no_path_becomes_no_folder(tmp_path, monkeypatch, path, remedy):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"root: expected a path on a disk, got .*{remedy}"):
        places.writable(path, "root")


def test_a_disk_that_is_not_mounted_is_not_created(monkeypatch, tmp_path):
    (tmp_path / "fstab").write_text(f"# disks\nserver:/x {tmp_path}/disk nfs defaults 0 0\n/dev/sda1 / ext4 rw 0 1\n")
    monkeypatch.setattr(places, "_TABLE", tmp_path / "fstab")
    monkeypatch.setattr(places, "_MOUNTS", (f"{tmp_path}/mnt",))
    (tmp_path / "disk").mkdir()
    for path in (f"{tmp_path}/disk/runs", f"{tmp_path}/mnt/nas/runs", f"{tmp_path}/mnt/nas"):
        with pytest.raises(ValueError, match=r"root: .*/(disk|mnt/nas) is not mounted, so .* would be another place"):
            places.writable(path, "root")
    assert not (tmp_path / "mnt").exists()
    (tmp_path / "disk" / "something").touch()
    assert places.writable(f"{tmp_path}/disk/runs", "root") == tmp_path / "disk" / "runs"
    monkeypatch.setattr(os.path, "ismount", lambda place: True)
    (tmp_path / "mnt" / "nas").mkdir(parents=True)
    assert places.writable(f"{tmp_path}/mnt/nas/runs", "root") == tmp_path / "mnt/nas/runs"
    assert places.writable(str(tmp_path / "other/deep"), "root") == tmp_path / "other/deep"


def test_results_go_to_a_folder_of_their_own(tmp_path):
    assert places.own_folder(str(tmp_path / "new"), "out", "metrics.json") == tmp_path / "new"
    assert places.own_folder(str(tmp_path), "out", "metrics.json") == tmp_path
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"out: expected a new or empty .* which holds thesis\.tex; set another"):
        places.own_folder(str(tmp_path), "out", "metrics.json")
    with pytest.raises(ValueError, match=r"out: expected a folder, .*thesis.tex is a file"):
        places.own_folder(str(tmp_path / "thesis.tex"), "out", "metrics.json")
    with pytest.raises(ValueError, match=r"out: expected a path below a folder, got .*/a/b, and .*tex is none"):
        places.own_folder(str(tmp_path / "thesis.tex/a/b"), "out", "metrics.json")
    (tmp_path / "metrics.json").touch()
    assert places.own_folder(str(tmp_path), "out", "metrics.json") == tmp_path


def test_a_result_in_one_file_replaces_only_its_like(tmp_path):
    file = tmp_path / "plan.json"
    assert places.own_file(str(file), "out", "bottleneck") == file
    file.write_text('{"bottleneck": "label"}')
    assert places.own_file(str(file), "out", "bottleneck") == file
    for other in ("Dear diary", "[]", '{"name": "mine"}'):
        file.write_text(other)
        with pytest.raises(ValueError, match=r"out: expected a new file, .*plan\.json, which is another; set another"):
            places.own_file(str(file), "out", "bottleneck")
    with pytest.raises(ValueError, match=r"out: expected a file, .* is a folder; set out=.*/NAME\.json"):
        places.own_file(str(tmp_path), "out", "bottleneck")
