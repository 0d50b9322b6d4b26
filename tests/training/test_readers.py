"""Every dataset, from its look-alike with the traps of the real lists to a manifest whose contents are known."""

import csv
import json

import numpy as np
import pytest
import soundfile
from PIL import Image

from transphere.training.data.convert import convert
from transphere.training.data.fakes import fake, media
from transphere.training.data.manifest import Manifest
from transphere.training.data.readers import READERS, reader
from transphere.training.errors import UserError


@pytest.fixture
def made(tmp_path):
    """A function that writes a look-alike and converts it: (items by id, what could not be used)."""

    def make(name, n=12, **options):
        folder = tmp_path / name
        if not folder.exists():
            fake(name, folder, n)
        manifest, faults = convert(name, folder, progress=False, overwrite=True, **options)
        assert manifest == Manifest.read(manifest.path)
        for item in manifest.items:
            for entry in item.modalities.values():
                assert entry is None or "path" not in entry or (manifest.root / entry["path"]).is_file()
        return {item.id: item for item in manifest.items}, faults

    return make


def splits(items):
    return {name: sum(item.split == name for item in items.values()) for name in ("train", "val", "test")}


@pytest.mark.parametrize("n", [6, 13])
@pytest.mark.parametrize("name", READERS)
def test_look_alike_converts_to_what_it_says(name, n, tmp_path):
    items, faults = fake(name, tmp_path / "new", n)
    manifest, found = convert(name, tmp_path / "new", progress=False)
    assert (len(manifest.items), len(found.reasons)) == (items, faults)
    assert any(item.split == "test" for item in manifest.items) or name in ("as5m", "folder")  # these two draw their splits


@pytest.mark.parametrize("name", READERS)
def test_every_variant_reads(name, made):
    for variant in reader(name).VARIANTS:
        items, _ = made(name, variant=variant, quick=True)
        assert items


def test_audiocaps(made):
    items, faults = made("audiocaps")
    assert splits(items) == {"train": 6, "val": 2, "test": 2}
    clip = items["test/Y-x_00000005"]
    assert clip.modalities["audio"]["path"] == "waveforms/test/Y-x_00000005.wav" and clip.group == "-x_00000005" and clip.caption == ""
    assert sorted(clip.modalities["text"]["texts"]) == sorted(media.captions(5, 5))
    assert "missing" in faults.reasons["waveforms/train/Y-x_00000001.wav"]
    assert "cut short" in faults.reasons["waveforms/train/Y-x_00000000.wav"]
    assert any("youtube_id" in reason for reason in faults.reasons.values())
    each, _ = made("audiocaps", variant="each")
    assert splits(each) == {"train": 6, "val": 10, "test": 10}
    assert {item.caption for item in each.values() if item.split == "test"} == {"test/Y-x_00000005", "test/Y-x_00000011"}
    first, _ = made("audiocaps", variant="first", splits=["test"])
    assert [len(item.modalities["text"]["texts"]) for item in first.values()] == [1, 1]


def test_audiocaps_with_the_lists_of_act(tmp_path, made):
    folder = tmp_path / "audiocaps"
    five = [f"caption_{k}" for k in range(1, 6)]
    for split, columns in (("train", ["caption"]), ("val", five), ("test", five)):
        rows = [[f"Y{split}_{i}.wav", *media.captions(i, len(columns))] for i in range(2)]
        media.table(folder / f"csv_files/{split}.csv", [["file_name", *columns], *rows])
        for i in range(2):
            media.sound(folder / f"waveforms/{split}/Y{split}_{i}.wav", i)
    items, faults = made("audiocaps")
    assert splits(items) == {"train": 2, "val": 2, "test": 2} and not faults.reasons
    assert items["test/Ytest_1"].modalities["text"]["texts"] == media.captions(1, 5) and items["test/Ytest_1"].group == "test_1"
    assert items["train/Ytrain_0"].modalities["text"]["texts"] == media.captions(0, 1)


def test_clotho_evaluation_is_test_and_validation_is_val(made):
    items, _ = made("clotho")
    assert splits(items) == {"train": 6, "val": 2, "test": 2}
    for item in items.values():
        folder = {"train": "development", "val": "validation", "test": "evaluation"}[item.split]
        assert item.modalities["audio"]["path"].startswith(folder + "/") and len(item.modalities["text"]["texts"]) == 5
    blank = items["train/ typical neighborhood 2.wav"]
    assert blank.group == items["test/FR.CTC.08.CoyuyoS.005.wav"].group == "66302"  # one recording of Freesound in two splits


def test_clotho_unpacked_without_the_leading_blank(tmp_path, made):
    made("clotho")
    development = tmp_path / "clotho/development"
    (development / " typical neighborhood 2.wav").rename(development / "typical neighborhood 2.wav")
    items, faults = made("clotho")
    assert len(items) == 10 and len(faults.reasons) == 2 and "train/typical neighborhood 2.wav" in items


def test_esc50(made):
    items, _ = made("esc50", variant="fold2")
    assert {item.meta["fold"] for item in items.values() if item.split == "test"} == {"2"} and splits(items)["train"] == 8
    clip = items["2-100033-A-36"]
    assert clip.label == clip.caption == "vacuum cleaner" and clip.group == "100033"
    assert clip.modalities["text"]["texts"] == ["This is a sound of vacuum cleaner."]
    assert splits(made("esc50")[0]) == {"train": 0, "val": 0, "test": 10}


def test_flickr8k(made):
    items, faults = made("flickr8k")
    assert splits(items) == {"train": 40, "val": 10, "test": 10}
    without_picture, without_speech = items["1000268201_693b08cb0e#0"], items["1000268202_693b08cb0e#3"]
    assert without_picture.modalities["image"] is None and without_picture.modalities["speech"]["path"].endswith("_0.wav")
    assert without_speech.modalities["speech"] is None and without_speech.caption == without_speech.group == "1000268202_693b08cb0e"
    assert without_speech.modalities["text"]["texts"] == [media.captions(1, 5)[3] + " ."]
    assert items["1000268205_693b08cb0e#1"].split == "val" and items["1000268205_693b08cb0e#1"].meta == {"speaker": "1"}
    assert any("jpg.1#0" in reason for reason in faults.reasons.values())
    five, _ = made("flickr8k", variant="five")
    assert len(five) == 12 and len(five["1000268202_693b08cb0e"].modalities["text"]["texts"]) == 5


def test_cub(made):
    items, faults = made("cub")
    assert splits(items) == {"train": 3, "val": 2, "test": 4}
    groups = {split: {item.group for item in items.values() if item.split == split} for split in ("train", "val", "test")}
    assert groups["test"] == {"004.Groove_billed_Ani", "006.Brandt_Cormorant"} and groups["val"] == {"005.Crested_Auklet"}
    bird = items["005.Crested_Auklet/Crested_Auklet_0004_796004"]
    assert bird.label == bird.caption == "Crested Auklet" and len(bird.modalities["text"]["texts"]) == 10
    seen = "003.Sooty_Albatross/Sooty_Albatross_0002_796002"
    assert seen not in items and items["004.Groove_billed_Ani/Groove_billed_Ani_0003_796003"].modalities["text"] is None
    assert any("1 313" in reason for reason in faults.reasons.values())
    official, _ = made("cub", variant="official")
    assert splits(official) == {"train": 6, "val": 0, "test": 4} and seen in official


def test_cub_attributes_are_those_of_the_lists(made, tmp_path):
    items, _ = made("cub")
    root = tmp_path / "cub/CUB_200_2011"
    number = {name.rsplit(".", 1)[0]: k for k, name in (line.split() for line in (root / "images.txt").read_text().splitlines())}
    for item in items.values():
        expected = np.zeros(312)
        for line in (root / "attributes/image_attribute_labels.txt").read_text().splitlines():
            image, attribute, *rest = line.split()
            if image == number[item.id] and rest:
                expected[int(attribute) - 1] = int(rest[0])
        np.testing.assert_array_equal(item.modalities["attributes"]["vector"], expected)
        mean = (root / "attributes/class_attribute_labels_continuous.txt").read_text().splitlines()[int(item.id[:3]) - 1]
        np.testing.assert_allclose(item.modalities["class"]["vector"], np.array(mean.split(), float) / 100)


def test_cub_labels_counted_from_zero_are_noticed(made, tmp_path):
    made("cub")
    file = tmp_path / "cub/CUB_200_2011/image_class_labels.txt"
    file.write_text("".join(f"{k} {int(label) - 1}\n" for k, label in (line.split() for line in file.read_text().splitlines())))
    (tmp_path / "cub/CUB_200_2011/attributes/image_attribute_labels.txt").unlink()
    with pytest.raises(UserError, match="no item.*12 were left out.*expected its folder's class, got 'none'"):
        made("cub")


def test_crema_d(made):
    items, faults = made("crema-d")
    assert splits(items) == {"train": 10, "val": 0, "test": 2}
    assert any("git-lfs pointer" in reason for reason in faults.reasons.values())
    assert any("BOR" in reason for reason in faults.reasons.values())
    clip = items["1003_IOM_SAD_X2"]
    assert clip.label == "sad" and clip.group == "1003" and clip.modalities["class"]["texts"] == ["sad"]
    assert clip.modalities["image"] == {"path": "Image-01-FPS/1003_IOM_SAD_X2/00002.jpg", "frames": "Image-01-FPS/1003_IOM_SAD_X2"}
    assert {i.group for i in items.values() if i.split == "test"} <= {i.group for i in items.values() if i.split == "train"}
    speakers, _ = made("crema-d", variant="speakers")
    assert len({(item.group, item.split) for item in speakers.values()}) == 4


def test_ssw60(made):
    items, _ = made("ssw60")
    assert splits(items) == {"train": 9, "val": 0, "test": 2} and set(items["483824"].modalities) == {"video", "audio", "image", "class"}
    assert items["483821"].modalities["audio"] is None and items["483824"].label == "Canada Goose"
    assert "audio" not in items["483823"].modalities
    assert made("ssw60", variant="inat")[0]["483825a"].split == "val"
    assert set(made("ssw60", variant="audio")[0]["483821"].modalities) == {"audio", "class"}


def test_ucf101(made):
    items, faults = made("ucf101")
    assert splits(items) == {"train": 9, "val": 0, "test": 3}
    pushup = items["v_HandstandPushups_g02_c01"]  # so spelt in this line of the list, not on the disk
    assert pushup.modalities["video"]["path"] == "UCF-101/HandstandPushups/v_HandStandPushups_g02_c01.avi"
    assert pushup.label == "handstand pushups" and pushup.group == "v_HandstandPushups_g02" and items["v_YoYo_g01_c01"].label == "yo yo"
    folder = "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01"  # whose middle frame is broken
    left = [f"{folder}/frame_{number}.jpg" for number in (1, 10)]
    assert items["v_ApplyEyeMakeup_g01_c01"].modalities["image"] == {"path": left[1], "frames": left}
    assert pushup.modalities["image"]["path"].endswith("/frame_2.jpg")
    assert any("number of classInd.txt (1)" in reason for reason in faults.reasons.values())  # a label counted from 0


def test_voxceleb2(made):
    items, faults = made("voxceleb2")
    assert splits(items) == {"train": 9, "val": 0, "test": 2} and len(faults.reasons) == 2
    assert not {item.group for item in items.values() if item.split == "train"} & {i.group for i in items.values() if i.split == "test"}
    first = items["id00012/_x-Video_0/00001"]
    assert first.modalities["audio"] is None
    assert first.modalities["image"]["path"] == "image/train/id00012#_x-Video_0#00001.txt#000.mp4/0000001.png"
    official, _ = made("voxceleb2", variant="official")
    assert splits(official) == {"train": 9, "val": 0, "test": 2} and official["id00012/_x-Video_0/00001"].label == "id00012"


def test_voxceleb2_with_train_list(made, tmp_path):
    made("voxceleb2")
    (tmp_path / "voxceleb2/train_vox2.csv").unlink()
    (tmp_path / "voxceleb2/train_list.txt").write_text("id00014 id00014/_x-Video_2/00003.wav\nid00015 id00014/_x-Video_2/00003.wav\n")
    items, faults = made("voxceleb2")
    assert splits(items)["train"] == 1 and any("ID ID/VIDEO/UTT.wav" in reason for reason in faults.reasons.values())


def test_yt8m_musicvideo(made):
    items, faults = made("yt8m-musicvideo")
    assert splits(items) == {"train": 7, "val": 2, "test": 2}
    assert items["-v_00000002"].modalities["text"]["texts"] == [
        'Song "No. 2" (official video) is a music video uploaded by Band train 0 on 2015-03-05.'
    ]
    assert items["-v_00000003"].modalities["text"] is None and items["-v_00000000"].modalities["audio"] is None
    assert items["-v_00000006"].group == items["-v_00000008"].group == "Band train 0"  # of an uploader and of a channel
    assert any("not an id" in reason for reason in faults.reasons.values())


def test_as5m(made):
    items, _ = made("as5m")
    song = items["previews/003 song"]
    first, second = "Song, the 3th is a Rock song by Artist 1, released on 2011-01-02.", "Song, the 3th is collected to Album 1."
    assert song.modalities["text"]["texts"] == [f"{first} {second}"]
    assert items["previews/000 song"].modalities["text"]["texts"][0].startswith("Song, the 0th is an Electronic song by Artist 1. ")
    assert items["previews/006 song"].label == "" and "is a song by" in items["previews/006 song"].modalities["text"]["texts"][0]
    assert len({item.modalities["image"]["path"] for item in items.values()}) == 4
    assert len({(item.group, item.split) for item in items.values()}) == 3  # albums 0 and 1 have one artist


def test_folder(made):
    items, faults = made("folder")
    ding = items["Ding 1 é"]
    assert ding.modalities["image"]["path"] == "pictures/Ding 1 é.JPG" and ding.modalities["audio"]["path"] == "sounds/Ding 1 é.wav"
    assert ding.modalities["text"]["texts"] == media.captions(1, 2)
    assert items["Ding 2 é"].modalities["text"]["texts"] == media.captions(2, 1) and items["Ding 2 é"].label == "even"
    assert items["Ding 0 é"].modalities["image"] is None and "pictures/alone.png" in faults.reasons


def test_folder_of_folders(tmp_path, made):
    folder = tmp_path / "folder"
    for split in ("train", "test", "dev"):
        for kind in ("cats", "dogs"):
            media.picture(folder / split / kind / "1.jpg", 1)
            media.text(folder / split / kind / "1.txt", [f"one of the {kind}"])
    items, _ = made("folder")
    assert set(items) == {f"{split}/{kind}/1" for split in ("train", "test", "val") for kind in ("cats", "dogs")}
    assert splits(items) == {"train": 2, "val": 2, "test": 2}
    assert {item.label for item in items.values()} == {"cats", "dogs"} and len({item.group for item in items.values()}) == 2


def test_folder_with_a_table_of_everything(tmp_path, made):
    folder = tmp_path / "folder"
    for number in range(3):
        media.picture(folder / f"{number}.png", number)
    rows = [["file", "caption", "split", "group", "label"], ["0.png", "a", "val", "g", "x"], ["1", "b", "test", "", ""]]
    rows += [["1", "c", "", "", ""], ["7.png", "d", "", "", ""], ["2", "e", "dev", "", ""]]
    media.table(folder / "captions.csv", rows)
    items, faults = made("folder")
    assert items["0"].split == "val" and items["0"].group == "g" and items["0"].label == "x"
    assert items["1"].modalities["text"]["texts"] == ["b", "c"] and items["1"].split == "test"
    assert len(faults.reasons) == 3 and "2" not in items  # an unknown file, an unknown split, and hence a picture alone


def test_folder_refuses_two_files_of_one_name_and_kind(tmp_path, made):
    media.picture(tmp_path / "folder/1.jpg", 1)
    media.picture(tmp_path / "folder/1.png", 1)
    with pytest.raises(UserError, match="1.jpg and 1.png are two files of one kind"):
        made("folder")


@pytest.mark.parametrize("name", READERS)
def test_another_layout_is_refused_by_name(name, tmp_path):
    (tmp_path / "readme.md").write_text("nothing")
    with pytest.raises(UserError, match="expected .*(found|got)"):
        convert(name, tmp_path, progress=False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected the columns .* got an empty file"),
        (b"a,b\n1,2\n", "expected the columns file_name, caption_1, got a, b; no 'file_name'"),
        (b"file_name,caption_1\n\xff.wav,x\n", "line 2: expected UTF-8, got byte 0xff"),
        (b'file_name,caption_1\na.wav,"' + b"x" * 200_000 + b'"\n', "line 2: not CSV: field larger"),
        (b"file_name,caption_1\nonly\n", "no item.*no 'caption_1'"),
        (b"file_name,caption_1\na,b,c\n", "expected 2 columns, got 3"),
        (b'file_name,caption_1\na.wav,"x\0y"\n', "line 2: holds a NUL byte"),
    ],
)
def test_bad_tables(content, message, tmp_path):
    (tmp_path / "clotho_captions_development.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        convert("clotho", tmp_path, progress=False)


def test_a_caption_may_hold_a_line_end_and_a_line_separator(tmp_path):
    media.sound(tmp_path / "development/a.wav", 1)
    with (tmp_path / "clotho_captions_development.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file_name", "caption_1"], ["a.wav", "one\ntwo\u2028three"]])
    manifest, _ = convert("clotho", tmp_path, progress=False)
    assert manifest.items[0].modalities["text"]["texts"] == ["one\ntwo\u2028three"]


def test_strict_ends_at_the_first(made, tmp_path):
    fake("clotho", tmp_path / "clotho")
    with pytest.raises(UserError, match="cut short.*--strict"):
        made("clotho", strict=True)
    fake("flickr8k", tmp_path / "flickr8k")
    with pytest.raises(UserError, match="token.txt, line 61: .*--strict"):
        made("flickr8k", strict=True)
    assert not (tmp_path / "clotho/manifest.jsonl").exists()


def test_quick_looks_only_whether_files_are_there(made):
    items, faults = made("clotho", quick=True)
    assert len(items) == 11 and len(faults.reasons) == 1


def test_a_manifest_elsewhere_has_paths_that_lead_back(tmp_path):
    fake("esc50", tmp_path / "data set")
    out = tmp_path / "far" / "away" / "m.jsonl"
    manifest, _ = convert("esc50", tmp_path / "data set", out, progress=False)
    path = manifest.items[0].modalities["audio"]["path"]
    assert path.startswith("../../data set/ESC-50-master/audio/") and (manifest.root / path).is_file()


def test_through_a_link(tmp_path):
    fake("esc50", tmp_path / "real" / "deep")
    (tmp_path / "link").symlink_to(tmp_path / "real" / "deep")
    (tmp_path / "out").mkdir()
    (tmp_path / "outlink").symlink_to(tmp_path / "out")
    manifest, _ = convert("esc50", tmp_path / "link", tmp_path / "outlink" / "m.jsonl", progress=False)
    assert (manifest.root / manifest.items[0].modalities["audio"]["path"]).is_file()


def test_validation_share_keeps_groups_together(tmp_path):
    fake("ssw60", tmp_path / "d", 60)
    manifest, _ = convert("ssw60", tmp_path / "d", variant="audio", val=0.4, quick=True, progress=False)
    counts = {name: len(manifest.split(name)) for name in ("train", "val", "test")}
    assert counts["test"] == 10 and 10 < counts["val"] < 30
    assert manifest.path.name == "manifest-audio.jsonl"
    fake("clotho", tmp_path / "c")
    with pytest.raises(UserError, match="validation split of its own"):
        convert("clotho", tmp_path / "c", val=0.1, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "fold9"}, "variant: esc50 has none called 'fold9'; did you mean"),
        ({"val": 1.0}, "val: expected a share"),
        ({"splits": ["train"]}, "has no item in the splits train"),
        ({"out": "."}, "got a folder"),
    ],
)
def test_bad_options(options, message, tmp_path):
    fake("esc50", tmp_path / "d")
    options = {**options, **({"out": tmp_path} if "out" in options else {})}
    with pytest.raises(UserError, match=message):
        convert("esc50", tmp_path / "d", progress=False, **options)


def test_unknown_names_absent_folders_and_manifests_that_are_there(tmp_path):
    with pytest.raises(UserError, match="did you mean 'clotho'"):
        convert("cloto", tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        convert("clotho", tmp_path / "absent")
    fake("clotho", tmp_path / "c")
    convert("clotho", tmp_path / "c", progress=False)
    with pytest.raises(UserError, match="--overwrite replaces it"):
        convert("clotho", tmp_path / "c", progress=False)
    with pytest.raises(UserError, match="new or empty folder"):
        fake("clotho", tmp_path / "c")
    with pytest.raises(UserError, match="items: expected 6 or more"):
        fake("clotho", tmp_path / "d", 2)


def test_nothing_that_can_be_used(tmp_path):
    fake("esc50", tmp_path)
    for file in tmp_path.rglob("*.wav"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match="no item of esc50 has a file that can be used; 12 were left out, the first: .*empty"):
        convert("esc50", tmp_path, progress=False)


def test_an_id_listed_twice_is_kept_once(made, tmp_path):
    fake("crema-d", tmp_path / "crema-d")
    with (tmp_path / "crema-d/test.csv").open("a") as file:
        file.write("1003_IOM_SAD_X2,SAD\n")
    items, faults = made("crema-d")
    assert items["1003_IOM_SAD_X2"].split == "train" and any("listed twice" in reason for reason in faults.reasons.values())


def test_a_name_that_is_not_utf8(tmp_path):
    media.picture(tmp_path / "a.png", 1)
    try:
        (tmp_path / "a.png").rename(tmp_path / "a\udcff.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    media.picture(tmp_path / "b.png", 1)
    media.table(tmp_path / "captions.csv", [["file", "caption"], ["b.png", "b"]])
    media.text(tmp_path / "a\udcff.txt", ["a"])
    manifest, faults = convert("folder", tmp_path, progress=False)
    assert [item.id for item in manifest.items] == ["b"] and any("not UTF-8" in reason for reason in faults.reasons.values())


def test_what_the_tones_and_shapes_are(tmp_path):
    media.sound(tmp_path / "a.wav", 3, rate=44_100)
    media.picture(tmp_path / "a.jpg", 3)
    samples, rate = soundfile.read(tmp_path / "a.wav")
    assert rate == 44_100 and abs(samples).max() > 0.2 and Image.open(tmp_path / "a.jpg").size == (64, 48)
    assert len(set(media.captions(1, 10))) == 10 and json.dumps(media.captions(1, 1))


def test_links_to_folders_are_followed_once(tmp_path):
    for number in range(2):
        media.picture(tmp_path / "elsewhere" / f"{number}.png", number)
        media.sound(tmp_path / "d" / f"{number}.wav", number)
    (tmp_path / "d" / "pictures").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "d")
    manifest, faults = convert("folder", tmp_path / "d", progress=False)
    assert [item.id for item in manifest.items] == ["0", "1"] and not faults.reasons
    assert manifest.items[0].modalities["image"] == {"path": "pictures/0.png"}


def test_a_folder_that_cannot_be_written_is_told_before_the_files_are_read(tmp_path, monkeypatch):
    fake("esc50", tmp_path / "d")
    monkeypatch.setattr("transphere.training.data.convert.os.access", lambda place, mode: False)
    with pytest.raises(UserError, match="cannot be written; --out"):
        convert("esc50", tmp_path / "d", progress=False)


def test_a_text_file_that_is_not_utf8_is_named_and_left_out(tmp_path):
    for number in range(2):
        media.picture(tmp_path / f"{number}.png", number)
        (tmp_path / f"{number}.txt").write_bytes(b"caf\xe9\n" if number else "café\n".encode())
    manifest, faults = convert("folder", tmp_path, progress=False)
    assert [item.id for item in manifest.items] == ["0"]
    assert "expected UTF-8, got byte 0xe9" in faults.reasons[str(tmp_path / "1.txt")] and "1.png" in faults.reasons
