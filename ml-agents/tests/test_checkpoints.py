"""The history of checkpoints: which files stay, and what the run's status says of them."""

import json

import pytest

from mlagents.trainers.model_saver.checkpoints import CheckpointHistory, ModelCheckpoint


@pytest.fixture
def make(tmp_path):
    """Return a function that makes the checkpoint of a step, with its two files."""

    def make(steps, reward=None):
        paths = [tmp_path / f"Ball-{steps}{suffix}" for suffix in (".onnx", ".pt")]
        for path in paths:
            path.write_text(str(steps))
        return ModelCheckpoint(steps, str(paths[0]), reward, 1000.0 + steps, [str(paths[1])])

    return make


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_checkpoints_are_kept(tmp_path, make):
    history = CheckpointHistory(keep_checkpoints=2)
    for steps in (100, 200, 300, 400):
        history.add(make(steps))
    assert [checkpoint.steps for checkpoint in history.checkpoints] == [300, 400]
    assert names(tmp_path) == ["Ball-300.onnx", "Ball-300.pt", "Ball-400.onnx", "Ball-400.pt"]


def test_a_checkpoint_written_again_takes_the_place_of_the_old_one(tmp_path, make):
    history = CheckpointHistory(keep_checkpoints=2)
    for steps, reward in [(100, 1.0), (200, 2.0), (200, 3.0)]:
        history.add(make(steps, reward))
    assert [(checkpoint.steps, checkpoint.reward) for checkpoint in history.checkpoints] == [(100, 1.0), (200, 3.0)]
    assert len(names(tmp_path)) == 4


def test_files_that_are_gone_already_are_no_matter(tmp_path, make):
    history = CheckpointHistory(keep_checkpoints=1)
    history.add(make(100))
    (tmp_path / "Ball-100.onnx").unlink()
    history.add(make(200))
    assert names(tmp_path) == ["Ball-200.onnx", "Ball-200.pt"]


def test_the_status_says_it_in_json(tmp_path, make):
    history = CheckpointHistory(keep_checkpoints=5)
    assert history.as_dict() == {"checkpoints": []}
    history.add(make(100))
    history.add(make(200, reward=1.5))
    history.final = history.checkpoints[-1]
    entry = {
        "steps": 200,
        "file_path": str(tmp_path / "Ball-200.onnx"),
        "reward": 1.5,
        "creation_time": 1200.0,
        "auxillary_file_paths": [str(tmp_path / "Ball-200.pt")],
    }
    status = json.loads(json.dumps(history.as_dict()))
    assert status.keys() == {"checkpoints", "final_checkpoint"}
    assert status["checkpoints"][1] == status["final_checkpoint"] == entry
    assert status["checkpoints"][0]["reward"] is None


def test_a_resumed_run_goes_on_with_the_history(tmp_path, make):
    before = CheckpointHistory(keep_checkpoints=2)
    before.add(make(100))
    before.add(make(200, reward=1.5))
    after = CheckpointHistory(keep_checkpoints=2)
    after.restore(json.loads(json.dumps(before.as_dict())), tmp_path)
    assert after.checkpoints == before.checkpoints
    after.add(make(300))
    assert names(tmp_path) == ["Ball-200.onnx", "Ball-200.pt", "Ball-300.onnx", "Ball-300.pt"]


def test_a_resumed_run_may_keep_fewer(tmp_path, make):
    before = CheckpointHistory(keep_checkpoints=3)
    for steps in (100, 200, 300):
        before.add(make(steps))
    after = CheckpointHistory(keep_checkpoints=1)
    after.restore(before.as_dict(), tmp_path)
    after.add(make(400))
    assert names(tmp_path) == ["Ball-400.onnx", "Ball-400.pt"]


@pytest.mark.parametrize(
    "status",
    [
        {},
        [1],
        {"checkpoints": 5},
        {"checkpoints": [{"steps": "x", "file_path": "Ball-1.onnx"}, {"steps": 1, "file_path": 5}]},
        {"checkpoints": [{"steps": 1, "file_path": "a", "auxillary_file_paths": [3]}], "best_checkpoint": {"steps": 1}},
        {"checkpoints": []},
        {"checkpoints": None},
        {"checkpoints": ["Ball-100.onnx", 3, None, {"steps": 100}, {"steps": 1, "file_path": "x", "unknown": 2}]},
    ],
)
def test_entries_of_another_shape_are_passed_over(status, tmp_path):
    history = CheckpointHistory(keep_checkpoints=2)
    history.restore(status, tmp_path)
    assert (history.checkpoints, history.best) == ([], None)


def test_an_entry_may_say_no_more_than_steps_and_file(tmp_path):
    history = CheckpointHistory(keep_checkpoints=2)
    history.restore({"checkpoints": [{"steps": 100, "file_path": "Ball-100.onnx"}]}, tmp_path)
    assert history.checkpoints == [ModelCheckpoint(100, str(tmp_path / "Ball-100.onnx"), None, 0.0, [])]


def test_a_copied_run_keeps_its_hands_off_the_original(tmp_path, make):
    history = CheckpointHistory(keep_checkpoints=1)
    history.add(make(100))
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "Ball-100.pt").touch()
    of_copy = CheckpointHistory(keep_checkpoints=1)
    of_copy.restore(history.as_dict(), copy)
    of_copy.add(make(200))
    assert names(copy) == []
    assert {"Ball-100.onnx", "Ball-100.pt"} <= set(names(tmp_path))
