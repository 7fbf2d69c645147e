from pathlib import Path

import pytest
import torch

from vidtad.errors import InputError
from vidtad.heads.person.feature_bank import load_banks, save_banks
from vidtad.models.acfb import Bank, BankOptions

VIDEO = Path("somewhere/film.mp4")


def filled(options: BankOptions | None = None, seconds: int = 30) -> Bank:
    torch.manual_seed(0)
    bank = Bank(options)
    for second in range(seconds):
        count = second % 4
        bank.add(float(second), torch.rand(count, 6, 3, 4), torch.rand(count))
    return bank


def test_banks_come_back_as_they_were(tmp_path: Path) -> None:
    options = BankOptions(reach_s=5, per_second=2)
    banks = {(VIDEO, mirrored): filled(options) for mirrored in (False, True)}
    (path,) = save_banks(banks, tmp_path, made_by="x")
    assert path.name == "film.bank.safetensors"
    again = load_banks([VIDEO, Path("other.mp4")], tmp_path, made_by="x")
    assert again.keys() == banks.keys()
    again.most_open = 1
    for key, bank in banks.items():
        assert again[key].options == options
        for second in (0, 11, 29, 90):
            torch.testing.assert_close(again[key].around(second), bank.around(second), rtol=0, atol=0)


def test_a_window_reaches_to_both_sides_and_keeps_the_surest() -> None:
    bank = Bank(BankOptions(reach_s=2, per_second=2))
    for second in range(9):
        rows = torch.full((3, 1, 1, 1), float(second)) + torch.tensor([0.0, 0.25, 0.5])[:, None, None, None]
        bank.add(float(second), rows, torch.tensor([0.9, 0.1, 0.5]))
    found = bank.around(4).flatten()
    assert found.dtype == torch.float16
    assert found.tolist() == [second + part for second in range(2, 7) for part in (0.0, 0.5)]
    bank.forget_before(5)
    assert [time_s for time_s, _ in bank.rows()] == [3, 4, 5, 6, 7, 8] and len(bank) == 12
    assert bank.around(20).shape == (0, 1, 1, 1)


def test_rows_must_fit_and_come_in_order() -> None:
    bank = filled()
    with pytest.raises(InputError, match="not after the last"):
        bank.add(29.0, torch.rand(1, 6, 3, 4), torch.ones(1))
    with pytest.raises(InputError, match="another size"):
        bank.add(40.0, torch.rand(1, 6, 3, 5), torch.ones(1))
    with pytest.raises(InputError, match="empty"):
        Bank().around(0)
    with pytest.raises(InputError, match="give more"):
        BankOptions(per_second=0)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (path,) = save_banks({(VIDEO, False): filled()}, tmp_path, made_by="x")
    with pytest.raises(InputError, match="another network"):
        load_banks([VIDEO], tmp_path, made_by="y")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged"):
        load_banks([VIDEO], tmp_path, made_by="x")
