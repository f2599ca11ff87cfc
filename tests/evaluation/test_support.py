"""Which examples are shown, and the features that RICES compares."""

import io
from pathlib import Path

import numpy as np
import open_clip
import pytest
import tiny
import torch
from PIL import Image

from miniflamingo.data.images import UnreadableImage
from miniflamingo.evaluation.example import Example, make_example
from miniflamingo.evaluation.similarity import check_pictures, clip_features
from miniflamingo.evaluation.support import at_random, most_similar, pictures_of
from miniflamingo.evaluation.tasks import TaskData
from miniflamingo.model.config import VisionConfig

CPU = torch.device("cpu")


def colour(key: str, shade: int, support: tuple[Example, ...] = ()) -> Example:
    """A picture of one shade with a little noise, so that likeness is known."""
    noise = np.random.default_rng(shade).integers(0, 8, (16, 16, 3), dtype=np.uint8)
    pixels = noise + np.array([shade, 128, 255 - shade], dtype=np.uint8).clip(0, 247)
    image = tiny.encoded(Image.fromarray(pixels.astype(np.uint8)))
    return make_example(key, image, [key], "f", support=support)


SUPPORT = [colour(f"s{shade}", shade) for shade in (200, 10, 120, 40, 160)]
QUERIES = [colour("q30", 30), colour("q180", 180)]
DATA = TaskData(QUERIES, SUPPORT, [], {})


def keys(examples) -> list[str]:
    return [each.key for each in examples]


def test_random_shots_follow_seed_and_query_and_only_grow():
    choose = at_random(DATA)
    few, many = choose(QUERIES[0], 2, 3), choose(QUERIES[0], 4, 3)
    assert keys(many)[-2:] == keys(few)
    assert len({each.key for each in many}) == 4
    drawn = {tuple(keys(choose(query, 2, seed))) for query in QUERIES for seed in range(5)}
    assert len(drawn) > 5
    assert choose(QUERIES[0], 0, 0) == []


def test_a_querys_own_support_set_comes_first():
    own = tuple(SUPPORT[:2])
    choose = at_random(DATA)
    assert set(keys(choose(QUERIES[0]._replace(support=own), 2, 0))) == {"s200", "s10"}


@pytest.fixture
def vision(clip_folder: Path) -> VisionConfig:
    return VisionConfig(f"local-dir:{clip_folder}")


def test_rices_puts_the_most_similar_last(vision, tmp_path):
    features = clip_features(vision, "e", pictures_of(DATA), tmp_path, CPU)
    choose = most_similar(DATA, features)
    model, _, transform = open_clip.create_model_and_transforms(vision.name)

    def vector(example: Example):
        picture = Image.open(io.BytesIO(example.image)).convert("RGB")
        with torch.no_grad():
            out = model.eval().encode_image(transform(picture)[None])[0]
        return out / out.norm()

    for query in QUERIES:
        cosine = {each.key: float(vector(each) @ vector(query)) for each in SUPPORT}
        expected = sorted(cosine, key=cosine.get)
        assert keys(choose(query, 5, 0)) == expected
        assert keys(choose(query, 2, 9)) == expected[-2:]


def test_rices_within_a_querys_own_support(vision, tmp_path):
    query = QUERIES[0]._replace(support=tuple(SUPPORT[:3]))
    data = TaskData([query], [], [], {})
    features = clip_features(vision, "e", pictures_of(data), tmp_path, CPU)
    shared = most_similar(TaskData(QUERIES[:1], SUPPORT[:3], [], {}), features)
    assert keys(most_similar(data, features)(query, 2, 0)) == keys(shared(QUERIES[0], 2, 0))


def test_features_are_kept_on_disk_and_follow_the_pictures(vision, tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    tiny.picture(0).save(file)
    examples = [*SUPPORT, make_example("a", file, ["a"], "f")]
    one = clip_features(vision, "e", examples, tmp_path / "cache", CPU)
    done = []
    with monkeypatch.context() as patch:
        patch.setattr("miniflamingo.evaluation.similarity.create_model", None)  # not needed
        two = clip_features(vision, "e", examples, tmp_path / "cache", CPU, done.append)
    assert done == [6]
    assert one.keys() == two.keys()
    assert all(one[key].equal(two[key]) for key in one)
    tiny.picture(1, 20).save(file)
    three = clip_features(vision, "e", examples, tmp_path / "cache", CPU)
    assert not three[str(file)].equal(one[str(file)])
    clip_features(vision, "another encoder", examples, tmp_path / "cache", CPU)
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_a_broken_picture_is_told_with_file_and_id(tmp_path):
    file = tmp_path / "b.jpg"
    file.write_bytes(tiny.encoded(tiny.picture(0, 64), "JPEG")[:200])
    done = []
    with pytest.raises(UnreadableImage, match=r"f: 'b': cannot read the picture .*b\.jpg"):
        check_pictures([*SUPPORT, make_example("b", file, ["b"], "f")], done.append)
    assert sum(done) == 5
