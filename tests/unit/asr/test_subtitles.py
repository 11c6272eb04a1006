"""What Whisper writes of sounds without words."""

import tomllib
from pathlib import Path

import pytest

from agent.asr import subtitles
from agent.asr.subtitles import Stock, spoken, stock
from agent.config.types import WHISPER


@pytest.mark.parametrize(
    "text",
    [
        *(
            "[BLANK_AUDIO]",
            "(music)",
            "[ Silence ]",
            "*coughs*",
            "♪ ♪",
            " (dramatic music) [BLANK_AUDIO]",
            "...",
            "-",
            "",
        ),
        *(
            "（拍手）",
            "【音楽】",
            "［音乐］",
            "〔笑い声〕",
            "「音楽」",
            "〈音楽〉",
            "＜音楽＞",
            "（観客の拍手）",
            "~音楽~",
        ),
        *("-Musik-", "– Applaus –", "— Gelächter —", "(2x Applaus)", "[2x Applaus]", "* Musique *", "** Musique **"),
        *(
            "<музыка>",
            "< музыка >",
            "«музыка»",
            "{music}",
            "_muziek_",
            "#Music#",
            "=Music=",
            "♪ Musik ♪",
            "♪ … ♪",
            "♪～",
        ),
        *(
            "[ __ ]",
            "[Music] [Applause]",
            "- (Lachen)",
            "([music])",
            "[Musik",
            "[Musik] [Musik] [Mus",
            "(موسيقى)",
            "*lacht* ...",
        ),
    ],
)
def test_notes_on_sounds_are_no_words(text: str) -> None:
    """Whisper learned them from subtitles; nobody said them. In every bracket and script."""
    assert spoken(text) == ""


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Untertitel der Amara.org-Community",
            "Untertitelung des ZDF, 2020",
            "Untertitel im Auftrag des ZDF für funk, 2017",
        ),
        *("Sous-titres réalisés par la communauté d'Amara.org", "Sous-titrage ST' 501", "Copyright WDR 2021"),
        *("Ondertitels ingediend door de Amara.org gemeenschap", "(C) TV GELDERLAND 2020", "Altyazı M.K."),
        *("Sottotitoli creati dalla comunità Amara.org", "Sottotitoli e revisione a cura di QTSS"),
        *("Subtítulos realizados por la comunidad de Amara.org", "Legendas pela comunidade Amara.org"),
        *("Субтитры сделал DimaTorzok", "Редактор субтитров А. Семкин Корректор А. Егорова"),
        *("Napisy stworzone przez społeczność Amara.org", "Titulky vytvořil JohnyX.", "字幕由Amara.org社区提供"),
        *("Subtitles by the Amara.org community", "请不吝点赞 订阅 转发 打赏支持明镜与点点栏目", "한글자막 by 한효정"),
    ],
)
def test_credits_are_no_words(text: str) -> None:
    """They are said in no house, so they need no further evidence."""
    assert spoken(text) == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[door slams] Turn it off. (laughs)", "Turn it off."),
        ("Turn it off (laughing)", "Turn it off"),
        ("(door creaks) Turn it off. (whispering quietly)", "Turn it off."),
        ("(laughs) (coughs) Hi", "Hi"),
        ("【拍手】ありがとう", "ありがとう"),
        ("（拍手）ありがとう", "ありがとう"),
        ("打开灯（笑声）", "打开灯"),
        ("-Musik- Guten Tag", "Guten Tag"),
        ("*seufzt* Na gut.", "Na gut."),
        ("[2x Applaus] Ja.", "Ja."),
        ("♪ La la la ♪", "La la la"),
        ("<i>Turn it off</i>", "Turn it off"),
        ("Mach das Licht an. Untertitel der Amara.org-Community", "Mach das Licht an."),
        ("请打开电灯。字幕由Amara.org社区提供", "请打开电灯。"),
        ("  Two   blanks ", "Two blanks"),
    ],
)
def test_words_beside_a_note_are_kept_whole(text: str, words: str) -> None:
    """Only the note goes."""
    assert spoken(text) == words


@pytest.mark.parametrize(
    "text",
    [
        *("Call (415) 555 0100.", "(415) 555 0100", "[415]", "2 * 3 * 4", "Включи свет!", "打开。关上！好"),
        *("Der Zug (der um acht) kommt.", "the customer(s) here", "(s)he is here", "I love (classical) music."),
        *("播放《晴天》", "Je dis «bonjour».", 'He said "music".', "Включи «Яндекс Музыка» погромче"),
        *("- Musik! - Nein!", "- Ah! - Ah!", "-Ja, gern. -Gut.", "- Ich -", "E-M-B-G-6-E-M-B-G-", "Das Hip-Musik-Fest"),
        *("Schalte die Untertitel ein.", "Öffne amara.org", "Musik", "MUZIEK."),
        "-Musik und dann sagte er gestern Abend ja- so",
    ],
)
def test_what_people_say_is_no_note(text: str) -> None:
    """Telephone numbers, titles, quotations, dialogues, insertions."""
    assert spoken(text) == text


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *(("MUZIEK.", Stock.SOUND), ("Musik, Musik.", Stock.SOUND), ("音楽", Stock.SOUND), ("Applaus", Stock.SOUND)),
        *(("ТРЕВОЖНАЯ МУЗЫКА", Stock.LABEL), ("DRAMATIC MUSIC", Stock.LABEL)),
        *(("Thanks for watching!", Stock.SIGN_OFF), ("Thank you. Please subscribe.", Stock.SIGN_OFF)),
        *(("ご視聴ありがとうございました。", Stock.SIGN_OFF), ("Merci d'avoir regardé cette vidéo !", Stock.SIGN_OFF)),
        *(("Thank you. Thank you.", Stock.THANKS), ("Dank u!", Stock.THANKS), ("you", Stock.THANKS)),
        *(("Thank you, computer.", None), ("Die Musik ist laut.", None), ("TURN THE MUSIC OFF", None), ("Tak.", None)),
        *(("", None), ("Silence!", None)),
    ],
)
def test_a_stock_text_is_one_as_a_whole(text: str, kind: Stock | None) -> None:
    """One word more makes it a sentence that was said."""
    assert stock(text) is kind


def test_the_lists_are_in_the_form_in_which_they_are_looked_up() -> None:
    """A capital or a comma in the file would make a text unfindable; languages are Whisper's."""
    tables = tomllib.loads(Path(subtitles.__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    assert set(tables) <= {*WHISPER}
    for table in tables.values():
        assert set(table) <= {"credits", "sign_offs", "thanks", "sounds"}
        for text in (text for texts in table.values() for text in texts):
            assert subtitles._words_of(text.replace("*", " x ")) == " ".join(text.replace("*", " x ").split())


@pytest.mark.parametrize("piece", ["(a", "*a", "- ", "[a", "a. ", "<a", "«", "-a", "♪a", " -a", "。"])
def test_a_long_text_of_half_notes_is_read_to_its_end(piece: str) -> None:
    """Nothing in it sends the search round in circles."""
    assert spoken("Hallo. " + piece * 4_000 + " So endet der lange Text.").endswith("Text.")
