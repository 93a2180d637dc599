"""What a bag of words makes of a text classification: the number that fine-tuning has to beat."""

from pathlib import Path

from trainers.tables import read


def bag_of_words_accuracy(train: Path, test: Path, text: str = "text", label: str = "label") -> float:
    """Accuracy on `test`, 0 to 1, of a logistic regression over TF-IDF of words and pairs of words of `train`.

    The same files always give the same number. Raises trainers.tables.TableError, OSError.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415 - it is slow to import
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - the same
    from sklearn.multiclass import OneVsRestClassifier  # noqa: PLC0415 - the same
    from sklearn.pipeline import make_pipeline  # noqa: PLC0415 - the same

    known, unseen = read(train, [text, label]), read(test, [text, label])
    # One regression a label, by liblinear: as good as all at once by L-BFGS, in a tenth of the time.
    regressions = OneVsRestClassifier(LogisticRegression(solver="liblinear", C=10.0, random_state=0))
    pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), regressions)
    pipeline.fit([words or "" for words in known[text]], [name or "" for name in known[label]])
    return float(pipeline.score([words or "" for words in unseen[text]], [name or "" for name in unseen[label]]))
