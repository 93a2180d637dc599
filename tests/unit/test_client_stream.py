from service.client.stream import Message, lines_of, messages


def test_a_message_has_its_name_its_text_and_its_id() -> None:
    assert list(messages(["id: 7", "event: trial.report", "data: {}", ""])) == [Message("trial.report", "{}", "7")]


def test_text_over_several_lines_is_joined() -> None:
    assert list(messages(["data: one", "data:two", ""])) == [Message("message", "one\ntwo", None)]


def test_a_comment_is_a_sign_of_life() -> None:
    assert list(messages([": ping", ""])) == [None]


def test_a_message_cut_off_before_its_end_is_dropped() -> None:
    assert list(messages(["data: whole", "", "id: 8", "data: half"])) == [Message("message", "whole", None)]


def test_one_message_does_not_lend_its_name_or_id_to_the_next() -> None:
    first, second = messages(["event: a", "id: 1", "data: x", "", "data: y", ""])
    assert (first, second) == (Message("a", "x", "1"), Message("message", "y", None))


def test_unknown_fields_are_passed_over() -> None:
    assert list(messages(["retry: 10", "data: x", ""])) == [Message("message", "x", None)]


def test_lines_are_put_together_from_pieces() -> None:
    assert list(lines_of([b"da", b"ta: \xc3", b"\xa4\r\n\r", b"\nrest"])) == ["data: ä", ""]


def test_a_line_separator_inside_the_text_does_not_end_the_line() -> None:
    assert list(lines_of(["data: a\u2028b\n".encode()])) == ["data: a\u2028b"]
