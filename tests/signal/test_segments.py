"""Tables of segments: CSV, TextGrid and RTTM as they are found, and what is wrong with others."""

from __future__ import annotations

import pytest

from avse_ppl.signal.segments import Segment, place_segments, read_segments

LONG = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 1.2
tiers? <exists>
size = 3
item []:
    item [1]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 1.2
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 0.25
            text = ""
        intervals [2]:
            xmin = 0.25
            xmax = 0.5
            text = "say ""ja"" 3"
        intervals [3]:
            xmin = 0.5
            xmax = 1.2
            text = "été"
    item [2]:
        class = "TextTier"
        name = "clicks"
        xmin = 0
        xmax = 1.2
        points: size = 1
        points [1]:
            number = 0.3
            mark = "click"
    item [3]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 1.2
        intervals: size = 1
        intervals [1]:
            xmin = 0.3
            xmax = 0.6
            text = "e"
"""
SHORT = """File type = "ooTextFile"
Object class = "TextGrid"

0
1.2
<exists>
3
"IntervalTier"
"words"
0
1.2
3
0
0.25
""
0.25
0.5
"say ""ja"" 3"
0.5
1.2
"été"
"TextTier" "clicks" 0 1.2 1 ! a comment with "quotes"
0.3 "click"
"IntervalTier"
"phones"
0
1.2
1
0.3
0.6
"e"
"""
WORDS = [
    Segment('say "ja" 3', 0.25, 0.5, "words"),
    Segment("été", 0.5, 1.2, "words"),
    Segment("e", 0.3, 0.6, "phones"),
]
TURNS = """;; two speakers
SPKR-INFO meeting 1 <NA> <NA> <NA> unknown anna <NA> <NA>
SPEAKER meeting 1 0.10 0.50 <NA> <NA> anna <NA> <NA>
SPEAKER meeting 1 0.40 0.30 <NA> <NA> ben <NA> <NA>
"""


def write(folder, name, text, encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("text", [LONG, SHORT], ids=["long", "short"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_grids_in_both_formats(tmp_path, text, encoding):
    path = write(tmp_path, "a.TextGrid", text, encoding)
    assert read_segments(path) == WORDS
    assert read_segments(path, "phones") == WORDS[2:]


def test_csv_with_any_separator_and_order(tmp_path):
    text = "end_s;name; start_s ;tier;recording\n0,5;bin;0,25;words;1\n\n0,9;blue;0,5;;\n"
    assert read_segments(write(tmp_path, "a.csv", text)) == [
        Segment("bin", 0.25, 0.5, "words", 1),
        Segment("blue", 0.5, 0.9),
    ]
    text = '\ufeffname,start_s,end_s\r\n"a, b",0.25,0.5\r\n'
    assert read_segments(write(tmp_path, "b.CSV", text)) == [Segment("a, b", 0.25, 0.5)]
    text = "name\tstart_s\tend_s\na\t0.25\t0.5\n"
    assert read_segments(write(tmp_path, "c.tsv", text)) == [Segment("a", 0.25, 0.5)]


def test_turns_of_speakers_may_overlap(tmp_path):
    path = write(tmp_path, "a.rttm", TURNS)
    anna, ben = Segment("anna", 0.1, 0.6, "anna"), Segment("ben", 0.4, 0.7, "ben")
    assert read_segments(path) == [anna, ben]
    assert read_segments(path, "ben") == [ben]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "", r"ending in \.csv, \.tsv, \.textgrid, \.rttm, found"),
        ("a.csv", "", "the columns name, start_s and end_s are missing.*found nothing"),
        (
            "a.csv",
            "name,start,end\na,0,1\n",
            "the columns start_s and end_s are missing.*found name, start, e",
        ),
        ("a.csv", "name,start_s,end_s\n", "it holds no segments; add some: a row each in CSV"),
        ("a.csv", "name,start_s,end_s\na,x,1\n", "line 2, start_s: expected a number.*found 'x'"),
        ("a.csv", "name,start_s,end_s\na,0\n", "line 2, end_s: expected a number.*found ''"),
        ("a.csv", "name,start_s,end_s\na,0,nan\n", "line 2, end_s: expected a number"),
        ("a.csv", "name,start_s,end_s\na,1,1\n", "'a' .1 to 1 s. does not end after it begins"),
        ("a.csv", "name,start_s,end_s\na,-1,1\n", "or begins before 0; times are in seconds"),
        (
            "a.csv",
            "name,start_s,end_s,recording\na,0,1,left\n",
            "line 2, recording: expected a whole number from 0, found 'left'",
        ),
        (
            "a.csv",
            "name,start_s,end_s\nb,1,2\na,0.5,1.1\n",
            r"'a' \(0.5 to 1.1 s\) and 'b' \(1 to 2 s\) overlap.*give them different tiers",
        ),
        ("a.rttm", TURNS.replace("ben", "anna"), "overlap; those of one tier or speaker must not"),
        ("a.rttm", "SPEAKER meeting 1 0.1\n", "line 1 has 4 columns; expected SPEAKER file"),
        ("a.rttm", TURNS.replace("1 0.40", "1 x"), "line 4, start: expected a number"),
        ("a.rttm", TURNS + TURNS.replace("meeting", "talk"), r"several files \(meeting, talk\)"),
        ("a.rttm", ";; none\n", "it holds no segments"),
        ("a.TextGrid", "hello", "no TextGrid in one of Praat's text formats; in Praat, choose"),
        ("a.TextGrid", LONG[:700], "the TextGrid is cut short; save it again"),
        ("a.TextGrid", LONG.replace('"TextGrid"', '"Pitch"'), "expected a TextGrid here"),
        ("a.TextGrid", SHORT.replace("<exists>\n3", "<exists>\n2.5"), "expected a count, found"),
        ("a.TextGrid", SHORT.replace("0.25\n0.5", '0.25\n"x"'), "damaged: expected a number"),
    ],
)
def test_what_is_wrong_is_said_with_the_fix(tmp_path, name, text, said):
    with pytest.raises(ValueError, match=said):
        read_segments(write(tmp_path, name, text))


def test_missing_files_tiers_and_encodings(tmp_path):
    with pytest.raises(FileNotFoundError, match="no table of segments at"):
        read_segments(tmp_path / "none.csv")
    with pytest.raises(
        ValueError, match="no segments of the tier 'w'; there are 'words', 'phones'"
    ):
        read_segments(write(tmp_path, "a.TextGrid", LONG), "w")
    path = write(tmp_path, "b.csv", "name,start_s,end_s\né,0,1\n", "latin-1")
    with pytest.raises(ValueError, match="not text in UTF-8 or UTF-16; save it as that"):
        read_segments(path)
    with pytest.raises(ValueError, match="no segments of the tier 'w'; there are none that has"):
        read_segments(write(tmp_path, "c.csv", "name,start_s,end_s\na,0,1\n"), "w")


def test_segments_go_to_their_recordings():
    both, second = Segment("a", 0.5, 1.0), Segment("b", 0.0, 0.5, recording=1)
    rows = place_segments([both, second], [1.0, 0.99])
    assert [[(s.name, s.end_s) for s in row] for row in rows] == [
        [("a", 1.0)],
        [("b", 0.5), ("a", 0.99)],
    ]
    with pytest.raises(ValueError, match=r"'b' .* is of recording 1, the posterior is of 1, coun"):
        place_segments([second], [1.0])
    for segment in (Segment("c", 0.5, 1.03), Segment("c", 1.0, 1.01)):
        with pytest.raises(ValueError, match="is not within recording 0, which is 1 s long; is th"):
            place_segments([segment], [1.0])
