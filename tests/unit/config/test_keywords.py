import unicodedata
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.keywords import LONGEST_CHARACTERS, doubt, keyword_rules, keywords_in, searchable
from agent.messages import MAX_TEXT_BYTES


def fires(entry: str, text: str) -> bool:
    """Whether `text` contains the keyword `entry`."""
    (rule,) = keyword_rules([entry])
    return keywords_in(text, [rule]) == (rule.name,)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("heater", "Turn the HEATER off."),
        ("heater off", "Heater... off!"),
        ("straße", "Auf der STRASSE"),
        ("/lights? (on|off)/", "Please, Light On"),
        ("lamp=/lights? on/", "lights on"),
        ("lamp=light on", "Light, on."),
    ],
)
def test_keywords_are_found_whatever_their_case_and_punctuation(entry: str, text: str) -> None:
    """Whisper writes capitals and commas as it likes; they decide nothing."""
    assert fires(entry, text)


@pytest.mark.parametrize(
    ("entry", "text"), [("heat", "the heater"), ("heater off", "heater is off"), ("/^on$/", "turn on"), ("off", "")]
)
def test_words_are_whole_words(entry: str, text: str) -> None:
    """`heat` is not said by saying `heater`, and a phrase is said in one piece."""
    assert not fires(entry, text)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        pytest.param("电灯", "打开客厅的电灯。", id="Chinese"),
        pytest.param("打开 电灯", "请打开电灯", id="Chinese, a keyword with a space"),
        pytest.param("電気", "電気をつけてください。", id="Japanese"),
        pytest.param("コンピュータ", "コンピューター、電気をつけて", id="Japanese, a long vowel at the end"),
        pytest.param("テレビ", "ﾃﾚﾋﾞをつけて", id="half-width katakana"),
        pytest.param("TVをつけて", "TVをつけて。", id="two scripts"),
        pytest.param("TVをつけて", "TV をつけて。", id="two scripts and a space"),
        pytest.param("TV", "リビングのＴＶを消して", id="full-width Latin in Japanese"),
        pytest.param("20", "２０度にして", id="full-width digits"),
        pytest.param("20", "اضبطها على ٢٠ درجة", id="Arabic digits"),
        pytest.param("เปิดไฟ", "เปิดไฟในครัว", id="Thai"),
        pytest.param("น้ำ", "ขอน้ำหน่อย", id="Thai, SARA AM"),
        pytest.param("ໄຟ", "ເປີດໄຟ", id="Lao"),
        pytest.param("ភ្លើង", "បើកភ្លើងនៅផ្ទះបាយ", id="Khmer"),
        pytest.param("မီး", "မီးဖွင့်ပါ", id="Burmese"),
        pytest.param("불", "불을 켜 줘", id="Korean, after a consonant"),
        pytest.param("커피", "커피를 끓여 줘", id="Korean, after a vowel"),
        pytest.param("거실", "거실에서는 꺼 줘", id="Korean, two particles"),
        pytest.param("연필", "연필로 써", id="Korean, 로 after ㄹ"),
        pytest.param("불 켜", "거실 불을 켜 줘", id="Korean, a particle within a phrase"),
        pytest.param("TV", "TV를 켜 줘", id="Korean, a particle behind Latin letters"),
        pytest.param("불", unicodedata.normalize("NFD", "불이야!"), id="Korean in single sounds"),
        pytest.param("दिन", "आज का दिन।", id="Hindi"),
        pytest.param("क़लम", unicodedata.normalize("NFD", "मेरी क़लम"), id="Hindi, a dot below"),
        pytest.param("বাতি", "বাতি জ্বালাও", id="Bengali"),
        pytest.param("விளக்கு", "விளக்கு போடு", id="Tamil"),
        pytest.param("ശ്രീ", "ശ്\u200dരീ", id="a zero-width joiner"),
        pytest.param("می\u200cخواهم", "میخواهم", id="Persian, a zero-width non-joiner"),
        pytest.param("النور", "أطفئ النُّورَ", id="Arabic with harakat"),
        pytest.param("النُّور", "أطفئ النـــور", id="Arabic without, stretched"),
        pytest.param("שלום", "שָׁלוֹם!", id="Hebrew with niqqud"),
        pytest.param("אור", "תדליק־אור", id="Hebrew, maqaf"),
        pytest.param("đèn", unicodedata.normalize("NFD", "Bật đèn lên"), id="Vietnamese"),
        pytest.param("Cafe\u0301", "Ein Café, bitte", id="NFD against NFC"),
        pytest.param("istanbul", "İstanbul", id="a Turkish capital with its dot"),
        pytest.param("ışık", "IŞIK", id="a Turkish letter without"),
        pytest.param("İZMİR", "izmir", id="a Turkish keyword"),
        pytest.param("φως", "ΦΩΣ", id="final sigma"),
        pytest.param("STRASSE", "straße", id="ß"),
        pytest.param("Straẞe", "STRASSE", id="capital ß"),
        pytest.param("ёлка", "зажги елку и Елка", id="Russian ё"),
        pytest.param("п'ять", "п’ять", id="Ukrainian, another apostrophe"),
        pytest.param("can't", "I CAN’T hear", id="an English contraction"),
        pytest.param("eau", "un verre d'eau", id="an elision"),
        pytest.param("istanbul", "İstanbul'da", id="a Turkish suffix"),
        pytest.param("wifi", "the Wi-Fi", id="a hyphen in the text only"),
        pytest.param("Wi-Fi", "the wifi", id="a hyphen in the keyword only"),
        pytest.param("wi fi", "the wi‑fi", id="a hyphen that does not break"),
        pytest.param("office", "the oﬃce", id="a ligature"),
        pytest.param("heater", "hea\u00adter", id="a soft hyphen"),
        pytest.param(r"दिन=/\bदिन\b/", "आज का दिन", id="an expression and a name in Hindi"),
        pytest.param("/caf\u0065\u0301/", "CAFÉ", id="an expression in NFD"),
        pytest.param("/istanbul/", "İstanbul", id="an expression and a Turkish capital"),
        pytest.param(r"/वह \w+ है/", "वह दिन है", id="a word in an expression"),
    ],
)
def test_a_keyword_is_found_in_every_script(entry: str, text: str) -> None:
    """Spelling, width, script and grammar of a word that was said do not hide it."""
    assert fires(entry, text)


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        pytest.param("天气", "今天，气温下降", id="Chinese, across a comma"),
        pytest.param("ปิดไฟ", "เปิดไฟในครัว", id="Thai: off is not in on"),
        pytest.param("คน", "คนา", id="Thai, a vowel behind"),
        pytest.param("มา", "ม้า", id="Thai, a tone"),
        pytest.param("ປິດ", "ເປິດ", id="Lao, a vowel in front"),
        pytest.param("ក", "ក្រ", id="Khmer, the upper of two"),
        pytest.param("រ", "ក្រ", id="Khmer, the lower of two"),
        pytest.param("လ", "လက်", id="Burmese, a closed syllable"),
        pytest.param("မီ", "မီး", id="Burmese, a tone"),
        pytest.param("カ", "ガス", id="Japanese, a voiced sound"),
        pytest.param("カ", unicodedata.normalize("NFD", "ガス"), id="Japanese, a voiced sound in NFD"),
        pytest.param("불", "불고기 먹자", id="Korean, a longer word"),
        pytest.param("불", "불가", id="Korean, a particle that needs a vowel"),
        pytest.param("커피", "커피을", id="Korean, a particle that needs a consonant"),
        pytest.param("불", "이불을 덮어", id="Korean, the end of a word"),
        pytest.param("दिन", "आज दान दो", id="Hindi, another vowel"),
        pytest.param("द", "दिन", id="Hindi, a letter without its vowel"),
        pytest.param("क", "क्या", id="Hindi, half of a ligature"),
        pytest.param("ক", "কি", id="Bengali, a letter without its vowel"),
        pytest.param("đèn", "màu đen", id="Vietnamese, another tone"),
        pytest.param("schon", "sehr schön", id="an umlaut"),
        pytest.param("cafe", "Café", id="an accent"),
        pytest.param("can", "I can't", id="the contrary"),
        pytest.param("heat", "the heat\u200ber", id="an invisible space"),
        pytest.param("1020", "10-20", id="a range"),
        pytest.param("twenty", "20 degrees", id="a number in digits"),
        pytest.param(r"/\bद\b/", "दिन", id="an expression and a vowel sign"),
    ],
)
def test_a_keyword_is_not_found_in_other_words(entry: str, text: str) -> None:
    """It would leave the device although it was not said."""
    assert not fires(entry, text)


FORMS: tuple[Literal["NFC", "NFD", "NFKC", "NFKD"], ...] = ("NFC", "NFD", "NFKC", "NFKD")


@given(st.text(min_size=1, max_size=40).filter(lambda entry: not entry.strip().startswith("/")))
def test_each_keyword_is_found_in_its_own_spelling(entry: str) -> None:
    """In any script, any normal form, and within punctuation."""
    try:
        rules = keyword_rules([f"name={entry}"])
    except ValueError:
        return  # it has no words
    for form in FORMS:
        assert keywords_in(f"¿{unicodedata.normalize(form, entry)}!", rules) == ("name",)


@given(st.text("aszéüßıİøłđşğжёωςאבعदকহ", min_size=1, max_size=8))
def test_a_word_is_not_found_in_a_longer_one(entry: str) -> None:
    """In a script with spaces."""
    assert not fires(entry, f"{entry}x")
    assert not fires(entry, f"x{entry}")


@given(st.text(max_size=200))
def test_a_text_in_its_searchable_form_does_not_change_any_more(text: str) -> None:
    """The form of a keyword and that of a text are the same."""
    first = searchable(text).splitlines()
    assert [searchable(line).splitlines()[:1] for line in first if line] == [[line] for line in first if line]


@pytest.mark.parametrize("letters", ["a", "-", "'", "電", "é\u0301", "a-", "불을 ", "\u0301"])
def test_long_texts_are_searched_too(letters: str) -> None:
    """Nothing in the longest text that is published, 8 KiB, defeats the search for words."""
    text = (letters * MAX_TEXT_BYTES)[:MAX_TEXT_BYTES]
    assert fires("lights on", f"{text} lights on")


def test_an_expression_that_never_ends_is_given_up() -> None:
    """Nested repetitions cannot stop the agent; the other keywords are still found."""
    rules = keyword_rules([r"/(\w+\s?)+!/", "lights"])
    assert keywords_in("word " * 200 + "lights", rules) == ("lights",)


def test_a_name_stands_for_its_pattern() -> None:
    """Only the name is published, so that a subscriber does not depend on the wording; a pattern may hold a `=`."""
    rules = keyword_rules(["lamp=/lights? on/", "heater off", "/a=b/"])
    assert [rule.name for rule in rules] == ["lamp", "heater off", "/a=b/"]


def test_all_that_match_are_told_in_the_order_of_the_settings() -> None:
    """Two rules may match one text."""
    assert keywords_in("light on, heater off", keyword_rules(["off", "heater", "on"])) == ("off", "heater", "on")


@pytest.mark.parametrize(
    "entries",
    [[""], ["..."], ["\u0301"], ["\u200b"], ["♪"], ["/(/"], ["/a{99999999999}/"], ["a=/x/", "a=/y/"], ["on", "on"]],
)
def test_what_cannot_be_meant_is_refused(entries: list[str]) -> None:
    """Empty entries, broken expressions and two of a name are mistakes, told at the start."""
    with pytest.raises(ValueError, match="keyword"):
        keyword_rules(entries)


@pytest.mark.parametrize(
    ("entry", "english_only", "useless"),
    [
        ("HEATER OFF", True, False),
        ("Café", True, False),
        ("电灯", False, False),
        ("电灯", True, True),
        ("свет", True, True),
        ("a" * LONGEST_CHARACTERS, True, False),
        ("a" * (LONGEST_CHARACTERS + 1), True, True),
        ("/lights?/", True, False),
        ("/(lights)?/", True, True),
    ],
)
def test_a_keyword_that_can_never_match_or_always_does_is_doubted(
    entry: str,
    english_only: bool,  # noqa: FBT001 - a table
    useless: bool,  # noqa: FBT001
) -> None:
    """`edgescribe check` warns about it; capitals are well."""
    (rule,) = keyword_rules([entry])
    assert bool(doubt(rule, english_only=english_only)) is useless
