"""CLIP's tokenizer on some 700 strings: two tables, one for each vocabulary; README.md has the format.

The reference is transformers' CLIPTokenizerFast. The slow CLIPTokenizer, whose result stands beside
it where it differs, departs from CLIP's own rules when ftfy is missing (README.md, "Tokens").
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from pathlib import Path

from transformers import CLIPTokenizer, CLIPTokenizerFast

from store import DATA

HERE = Path(__file__).parent
FOLDERS = {
    "emoji": HERE.parents[1] / "models" / "emoji" / "tokenizer",
    "mini": HERE / "models" / "mini" / "tokenizer",
}

PROMPTS = """
a red heart|an emoji of a panda|a tiger face on a blue background|pizza|红心|红色背景上的熊猫
A RED HEART|A Red Heart On A Blue Background|aRedHeart|a  red   heart|a red heart.|a red heart, a blue star; and more!
I'm he's don't we've they'll you'd we're 'tis 'twas rock'n'roll o'clock|I'M HE'S DON'T WE'VE THEY'LL YOU'D WE'RE
'''s ''t 'st 's's 'll'll|it's 's s' ' '' '''|can't've shouldn't've y'all'd've|don’t it’s we’ve|it`s|'S 'T 'RE 'VE 'M 'LL 'D
x'sy|5'3"|the '90s|dog's's|'re're|'mm|'dd|'lls|'ves|'rest
0|7|42|1024|3.14159|1,000,000|1e-5|0x1F600|1st 2nd 3rd|50%|$20|€5|£3.50|¥1000|2024-01-31|12:30|+1-202-555-0100|½ ¼ ¾|x² + y³|H₂O|Ⅷ ⅻ
①②③ ⑩|٠١٢٣٤٥٦٧٨٩|०१२३४५|๐๑๒๓|一二三四五|１２３４|ABC123def456|3d4d|no.1|v1.2.3-rc4|1a2b3c4d5e
hello,world|hello , world|(a)[b]{c}<d>|a/b\\c|a_b-c+d=e|#hashtag @mention|user@example.com|https://example.com/a?b=c&d=e#f|C:\\dir\\file.txt
...|…|!!!|?!?!|***|###|--|—|–|―|''|""|“quoted”|„low“|«guillemets»|‹single›|‘single’|¿qué?|¡hola!|·|•|†|‡|§|¶|©|®|™|°|±|×|÷
~`!@#$%^&*()_+-={}[]:;"'<>,.?/|a|z|A|Z|é|ß|ẞ|ﬁ|ﬀ|ĳ|ǆ|ŉ|ſ|K|Å|ℵ|ª|º|µ|Ω|ʼn
&amp; &lt;b&gt; &quot;x&quot; &#39; &nbsp; &eacute;|&amp;amp;|<b>bold</b>|<br/>|&unknown;|&#x1F600;|&lt;|endoftext|&gt;
<|startoftext|>|<|endoftext|>|a <|endoftext|> b|<|startoftext|>a red heart<|endoftext|>|<|ENDOFTEXT|>|<|endoftext|><|endoftext|>|<| endoftext |>|x<|startoftext|>y|  <|endoftext|>  
straße STRASSE Straße|MASSE Maße|İstanbul I ı İ i|DİYARBAKIR|ΑΣ ΣΑΣ ΟΔΟΣ ὈΔΥΣΣΕΎΣ Σ|ΣΊΣΥΦΟΣ|ς σ Σ|ǅ ǈ ǋ ǲ|Ⴀ Ა|Ꭰ ꭰ|Ѐ Ѝ Ё|Ǆ|ԱՒ և|ŁÓDŹ łódź
naïve café façade coöperate résumé Zoë|Ångström Ðórr þing Æsir Œuvre|crème brûlée|jalapeño piñata|Việt Nam|Dvořák Škoda|Þórr|ĦĦ ħħ|Ñ ñ|ŷ ŵ|ɐ ə ɛ
ﷺ|لا إله|بِسْمِ ٱللَّهِ|العَرَبِيَّة|الـعـربـيـة|گچپژ|اردو زبان|עִבְרִית|שָׁלוֹם עֲלֵיכֶם|ייִדיש|ﬠﬡ|שׁ שׂ|‏rtl mark‏|‮override‬
हिन्दी क्षत्रिय ज्ञान|क़ ख़ ग़ ज़|नमस्ते दुनिया|বাংলা ড় ঢ় য়|ਪੰਜਾਬੀ ਸ਼ ਖ਼|ગુજરાતી|ଓଡ଼ିଆ|தமிழ் ொ ோ ௌ|తెలుగు|ಕನ್ನಡ ೊ ೋ|മലയാളം ൊ ോ|සිංහල ෝ ෞ|ไทย น้ำ กำ|ລາວ|မြန်မာ ဦ|ភាសាខ្មែរ|བོད་ སྐད|ᠮᠣᠩᠭᠣᠯ
日本語のテスト|ひらがな カタカナ ﾊﾝｶｸ|がぎぐげご ガギグ|パピプペポ|はﾟ ｶﾞ|々〆ヶ|漢字かな交じり文、句読点。|㈱ ㍿ ㌔ ㎏|〜～ー|中文字符，标点！|繁體中文「引號」|龍 龙 竜|𠮷野家|𠀀𠀁|豈 更 車|〇〡〢|㐀㐁|中a文b|a中文|中 文|１２３ＡＢＣａｂｃ！
한국어 시험|가각간|ㄱㄴㄷ|한글과 漢字|각|뷁|ㅋㅋㅋ|대한민국 만세!
ქართული ᲥᲐᲠᲗᲣᲚᲘ|Հայերեն|አማርኛ ፩፪፫|ᏣᎳᎩ|ᐃᓄᒃᑎᑐᑦ|ⵜⵉⴼⵉⵏⴰⵖ|ߒߞߏ|ꦧꦱꦗꦮ|ᚠᚢᚦ ᚛ᚑᚌ᚜|𐌰𐌱𐌲|𐤀𐤁|𓀀𓁐|𝐀𝒜𝔄 𝟘𝟙|ⓐⓑ Ⓐ|🄰🅱|Ａ|ℌ ℑ|Ⅳ ⅳ
😀|😀😀|😀😀😀 a|❤|❤️|♥|🍎🍕|a 🍎 b|a🍎b|😀!|!😀|🎉🎉🎉🎉🎉🎉🎉🎉|👍🏻👍🏼👍🏽👍🏾👍🏿|👩‍🚀|👨‍👩‍👧‍👦|🧑🏽‍💻|👩🏾‍❤️‍💋‍👨🏻|🏳️‍🌈|🏴‍☠️|🏴󠁧󠁢󠁥󠁮󠁧󠁿|🇩🇪|🇩🇪🇫🇷🇯🇵|🇩|1️⃣ #️⃣ *️⃣|☀️🌙⭐|♂️ ♀️|🤷🏿‍♀️|🐻‍❄️|🫠|☺︎ ☺️|✈︎|🅰️|㊗️|🈁|🀄|🃏|⌚️|ℹ️
"""

CONTROL = (
    "",
    " ",
    "   ",
    "\t",
    "\n",
    "\r\n",
    " a",
    "a ",
    " a ",
    "a\tb",
    "a\nb",
    "a\r\nb",
    "a\vb\fc",
    "a\u00a0b",
    "a\u0085b",
    "a\u1680b",
    "a\u2000b\u2001c\u2002d\u2003e\u2009f\u200ag",
    "a\u2028b\u2029c",
    "a\u202fb\u205fc",
    "a\u3000b",
    "\u3000\u3000",
    "a\u180eb",
    "a\u200bb",
    "a\u200cb\u200dc",
    "a\u2060b",
    "\ufeffa",
    "a\ufeffb",
    "a\u00adb",
    "a\u034fb",
    "a\x01b\x02c",
    "a\x1cb\x1dc\x1ed\x1fe",
    "a\x7fb",
    "a\x80b\x9fc",
    "\x1b[31mred\x1b[0m",
    "a\x08b",
    "a\x00b",
    "\x00",
    "a\ufffdb",
    "\ufffd",
    "a\ufffeb\uffff",
    "a\ue000b",
    "\U000f0000",
    "\U0010ffff",
    "a\u0301",
    "\u0301a",
    "\u0301",
    " \u0301",
    "e\u0301\u0301",
    "e\u0323\u0302",
    "e\u0302\u0323",
    "\u1ec7 \u00ea\u0323 \u1eb9\u0302",
    "A\u030a \u212b \u00c5",
    "\u2126 \u212a",
    "o\u0308\u0304 \u022b",
    "s\u0323\u0307 s\u0307\u0323 \u1e69",
    "\u0344 \u0387 \u037e \u1fef",
    "\u0958 \u0929 \u0931 \u0934",
    "\u0f43 \u0f71\u0f72",
    "\u1100\u1161 \u1100\u1161\u11a8 \uac00\u11a8",
    "\ufb1d \ufb2a \ufb4f",
    "\uf900 \ufa0e \U0002f800",
    "I\u0307 \u0130 i\u0307",
    "\u03a3\u0301 \u0391\u03a3\u0301",
    "\u2adc \u0374",
    "Z\u0351\u036b\u0343\u036a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e\u0349\u035a\u032f\u031e\u0320\u034dA\u036b\u0357\u0334\u0362\u0335\u031c\u0330\u0354L",
)

BROKEN = (
    b"\xff",
    b"\xfe\xff",
    b"\x80",
    b"\xbf\xbf\xbf",
    b"a\xffb",
    b"a red\xffheart",
    b"\xc3",
    b"\xc3(",
    b"caf\xe9",
    b"\xe9t\xe9",
    b"\xc0\x80",
    b"\xc1\xbf",
    b"\xe0\x80\x80",
    b"\xe0\x9f\xbf",
    b"\xe0\xa0",
    b"\xe2\x82",
    b"\xe2\x82a",
    b"\xe2\x28\xa1",
    b"\xe2\x82\x28",
    b"\xed\xa0\x80",
    b"\xed\xa0\xbd\xed\xb8\x80",
    b"\xf0\x9f\x98",
    b"\xf0\x9f\x98a",
    b"\xf0\x9f",
    b"\xf0",
    b"\xf0\x28\x8c\xbc",
    b"\xf0\x80\x80\x80",
    b"\xf0\x8f\xbf\xbf",
    b"\xf4\x90\x80\x80",
    b"\xf4\x8f\xbf",
    b"\xf5\x80\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xe7\xba\xa2\xe5\xbf",
    b"\xe7\xba\xe5\xbf\x83",
    b"\xe7\xba\xa2\xff\xe5\xbf\x83",
    "héart".encode("latin-1"),
    "красное".encode("cp1251"),
    "赤".encode("shift-jis"),
    "红心".encode("gbk"),
    "a red heart".encode("utf-16"),
    "a\ud800b".encode("utf-8", "surrogatepass"),
    bytes(range(256)),
    bytes(range(128, 256)),
)

LONG = (
    "a red heart " * 40,
    "heart" * 200,
    "a" * 5000,
    "红心" * 300,
    "😀" * 300,
    "1234567890" * 30,
    "!" * 1000,
    "!?" * 500,
    "e\u0301" * 500,
    "supercalifragilisticexpialidocious " * 20,
    " " * 1000 + "a" + " " * 1000,
    "x" + "\u0301" * 1000,
    "a " * 21 + "b",
    "a " * 22 + "b",
    "a " * 29 + "b",
    "a " * 30 + "b",
    "a " * 75 + "b",
    "a " * 76 + "b",
)


def cases() -> Iterator[tuple[str, bytes]]:
    """(category, bytes), each only once."""
    corpus = (HERE / "tokenizer_corpus.txt").read_text().splitlines()
    prompts = [prompt for line in PROMPTS.strip("\n").split("\n") for prompt in special_bars(line)]
    yield from (("prompt", prompt.encode()) for prompt in prompts)
    yield from (("control", text.encode()) for text in CONTROL)
    yield from (("broken", raw) for raw in BROKEN)
    yield from (("long", text.encode()) for text in LONG)
    yield from (("corpus", line.encode()) for line in corpus)
    yield from (("upper", line.upper().encode()) for line in corpus)
    for form in ("NFD", "NFKC", "NFKD"):
        yield from ((form.lower(), unicodedata.normalize(form, line).encode()) for line in corpus + prompts)
    yield from (("cut", line.encode()[: len(line.encode()) // 2 + 1]) for line in corpus)
    yield from (("joined", (a + b).encode()) for a, b in zip(corpus, corpus[::-1]))


def special_bars(line: str) -> list[str]:
    """The prompts of a line: separated by bars, save those of the special tokens."""
    guarded = line.replace("<|", "<\0").replace("|>", "\0>")
    return [prompt.replace("\0", "|") for prompt in guarded.split("|")]


def unique(rows: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    seen: set[bytes] = set()
    for category, raw in rows:
        if raw not in seen:
            seen.add(raw)
            yield category, raw


def table(folder: Path) -> str:
    fast = CLIPTokenizerFast.from_pretrained(folder)
    slow = CLIPTokenizer.from_pretrained(folder)
    assert slow.fix_text is None, "ftfy must not be installed: it changes the slow tokenizer"
    lines = [f"# model_max_length {fast.model_max_length}\n"]
    for category, raw in unique(cases()):
        text = raw.decode("utf-8", errors="replace")
        want, other = (t(text, truncation=True, max_length=t.model_max_length).input_ids for t in (fast, slow))
        slow_ids = "=" if other == want else " ".join(map(str, other))
        lines.append(f"{category}\t{raw.hex()}\t{' '.join(map(str, want))}\t{slow_ids}\n")
    return "".join(lines)


def generate() -> None:
    DATA.mkdir(exist_ok=True)
    for name, folder in FOLDERS.items():
        (DATA / f"tokenizer-{name}.tsv").write_text(table(folder))
