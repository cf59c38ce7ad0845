"""Short texts in nine languages, Python and JSON, written to measure how well two vocabularies agree."""

from __future__ import annotations

from collections.abc import Mapping

SAMPLE_TEXTS: Mapping[str, str] = {
    "English": (
        "The harbour was quiet when the ferry came in. Two children counted the gulls on the roof of the market, "
        'and an old man with a basket of onions asked them, "How many did you say?" Nobody knew. By 7:30 the '
        "rain had stopped, the streets smelled of bread, and about 240 passengers were waiting for the train."
    ),
    "German": (
        "Am Morgen lag Nebel über dem Fluss, und die Brücke war kaum zu sehen. Die Bäckerin öffnete ihren "
        'Laden früher als sonst, denn an Feiertagen kommen viele Gäste. "Noch Kaffee?", fragte sie freundlich.'
    ),
    "French": (
        "L'été dernier, nous avons traversé les montagnes à pied. Le soir, chacun racontait une histoire près du "
        "feu, et personne n'avait envie de dormir. Où étions-nous exactement ? Ça n'avait aucune importance."
    ),
    "Spanish": (
        "Mi abuela guardaba las cartas en una caja de madera. Cada domingo leíamos una, despacio, mientras el "
        "niño pequeño jugaba en el jardín. ¿Quién escribió la última? Todavía no lo sabemos."
    ),
    "Russian": (
        "Вечером в библиотеке почти никого не было. Студентка читала книгу о звёздах и записывала вопросы в "
        "тетрадь. За окном шёл снег, и город казался совсем тихим."
    ),
    "Chinese": (
        "早上的市场很热闹。卖茶的老人说，今年的春天来得比往年早。我们买了三斤苹果，然后坐公共汽车回家。"
    ),
    "Japanese": (
        "駅前の小さな喫茶店で、友だちと待ち合わせをしました。"
        "雨が降っていたので、二時間ほど話してから帰りました。"
    ),
    "Arabic": "جلس المعلم تحت الشجرة وقرأ قصة قصيرة للأطفال. كان الجو جميلا، وكانت الطيور تغني في الحديقة.",
    "Hindi": "गाँव के पास एक पुराना कुआँ है। शाम को लोग वहाँ बैठकर बातें करते हैं और बच्चे खेलते हैं।",
    "Python": (
        "def moving_average(values: list[float], width: int = 3) -> list[float]:\n"
        "    if width < 1:\n"
        '        raise ValueError(f"width must be positive, not {width}")\n'
        "    sums = [sum(values[i : i + width]) for i in range(len(values) - width + 1)]\n"
        "    return [total / width for total in sums]\n"
    ),
    "JSON": (
        '{"station": "North Pier", "open": true, '
        '"tides": [{"hour": 4, "metres": 1.82}, {"hour": 10, "metres": 0.4}]}\n'
    ),
}
"""The text of each language, by the language's name."""
