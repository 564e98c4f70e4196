"""Images by index, in memory and on disk."""

from __future__ import annotations

import pytest
import torch

from neuface.errors import InputError
from neuface.io.image_store import ImageStore


@pytest.mark.parametrize("most_in_memory_bytes", [0, 1 << 20])
def test_images_are_read_as_they_were_written(most_in_memory_bytes: int) -> None:
    images = torch.rand(7, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    store = ImageStore(7, (3, 4, 5), most_in_memory_bytes=most_in_memory_bytes)
    store.write(4, images[4:])
    store.write(0, images[:4])
    index = torch.tensor([6, 0, 3, 3])
    assert torch.equal(store[index], images[index])
    assert store[index[:0]].shape == (0, 3, 4, 5)


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    store = ImageStore(2, (3, 4, 5), most_in_memory_bytes=0)

    class Full:
        def seek(self, _: int) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "_file", Full())
    with pytest.raises(InputError, match=r"temporary file .*No space left.*TMPDIR"):
        store.write(0, torch.zeros(1, 3, 4, 5))
