"""The main job on text: real messages, repeated far beyond the ceiling, train a classifier of spam."""

import itertools
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import oocload

MESSAGES = Path(__file__).parents[2] / "shared" / "data" / "sms" / "SMSSpamCollection.tsv"
N_TOKENS = 2**16
COPIES = 150
MEMORY = "24 MiB"
N_STEPS = 40

pytestmark = pytest.mark.skipif(not MESSAGES.exists(), reason="needs the SMS Spam Collection beside the project")


def messages() -> Iterator[tuple[list[int], int]]:
    """Yield each message as the numbers of its words and pairs of words, and whether it is spam."""
    for line in MESSAGES.read_text(encoding="utf-8").splitlines()[1:]:
        label, _, text = line.partition("\t")
        words = re.findall(r"[a-z]+|[0-9]|[^\sa-z0-9]", text.lower())
        pairs = [f"{a} {b}" for a, b in itertools.pairwise(words)]
        yield [zlib.crc32(w.encode()) % N_TOKENS for w in words + pairs], int(label == "spam")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sms") / "messages.h5"
    rows, labels = zip(*messages(), strict=True)
    numbers = np.random.default_rng(0).permutation(len(rows))
    spam, offsets = np.array(labels)[numbers], np.cumsum([0, *(len(rows[n]) for n in numbers)])
    values = np.concatenate([np.array(rows[n], "int32") for n in numbers])
    with oocload.create(path, fields={"x": (None, "int32"), "y": "int64", "message": "int64"}) as writer:
        for _ in range(COPIES):
            writer.append(x=(values, offsets), y=spam, message=numbers)
    return path


@pytest.mark.filterwarnings("ignore::oocload.ShuffleQualityWarning")  # copies of a message mix by themselves
@pytest.mark.parametrize("rule", ["values", oocload.Pad(128, padding="pre", beside="mask")])
def test_messages_far_beyond_the_ceiling_train_a_spam_filter(store: Path, rule: Any) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    weights = torch.nn.EmbeddingBag(N_TOKENS, 1, mode="sum")
    torch.nn.init.zeros_(weights.weight)
    bias = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adagrad([*weights.parameters(), bias], lr=0.1)

    def scores(x: Any) -> Any:
        if isinstance(x, oocload.Ragged):
            return weights(torch.from_numpy(x.values), torch.from_numpy(x.offsets[:-1])).squeeze(1) + bias
        mask = x["x_mask"] if isinstance(x, dict) else x != 0
        tokens = torch.from_numpy(x["x"] if isinstance(x, dict) else x)
        return weights(tokens, per_sample_weights=torch.from_numpy(mask.astype("float32"))).squeeze(1) + bias

    with oocload.Loader(store, 512, x="x", y="y", seed=0, memory=MEMORY, ragged=rule) as loader:
        field = oocload.open(store).fields["x"]
        assert field.nbytes > 5 * loader.memory
        rows = np.arange(loader.n_rows)
        held_out = rows % (loader.n_rows // COPIES) % 5 == 0  # a message and its copies are on the same side
        train, test = loader.split({"train": rows[~held_out], "test": rows[held_out]}).values()
    with train, test:
        for x, y in itertools.islice(train, N_STEPS):
            optimizer.zero_grad()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(scores(x), torch.from_numpy(y).float())
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            right = [np.mean((scores(x) > 0).numpy() == y) for x, y in itertools.islice(test, N_STEPS)]
        assert train.stats.memory.peak <= train.memory
    assert np.mean(right) >= 0.97
