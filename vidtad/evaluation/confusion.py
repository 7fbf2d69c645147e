"""Which class is taken for which."""

from typing import Any

import numpy as np

from vidtad.evaluation.diagnosis import CONFUSION, WRONG_LABEL, Diagnosis

QUOTED_TIOU = 0.5


def confusions(found: Diagnosis) -> dict[str, Any]:
    """Pairs of classes among the false positives of the threshold nearest to 0.5, most frequent first.

    A prediction counts for the class of the annotation it overlaps most: `wrong_label` where that overlap
    reaches the threshold, `confusion` where it is at least 0.1.
    """
    fp, aligned = found.false_positives, found.aligned
    tiou = np.array(aligned.protocol.tiou)
    row = int(np.abs(tiou - QUOTED_TIOU).argmin())
    wrong = np.isin(fp.outcome[row], (WRONG_LABEL, CONFUSION))
    predicted = aligned.pr_class[aligned.order[fp.rank[wrong]]]
    truth = aligned.gt_class[fp.best[wrong]]
    strict = fp.outcome[row][wrong] == WRONG_LABEL
    pair, which = np.unique(predicted * len(aligned.classes) + truth, return_inverse=True)
    total = np.bincount(which.reshape(-1), minlength=len(pair))
    close = np.bincount(which.reshape(-1)[strict], minlength=len(pair))
    order = np.argsort(-total, kind="stable")
    return {
        "tiou": float(tiou[row]),
        "pairs": [
            {
                "predicted": aligned.classes[pair[i] // len(aligned.classes)],
                "truth": aligned.classes[pair[i] % len(aligned.classes)],
                "count": int(total[i]),
                "wrong_label": int(close[i]),
                "confusion": int(total[i] - close[i]),
            }
            for i in order.tolist()
        ],
    }
