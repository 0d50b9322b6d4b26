"""Every dataset, from its look-alike with the traps of the real lists to a manifest whose contents are known."""

import numpy as np
import pytest

from transphere.training.data.convert import convert
from transphere.training.data.fakes import fake, media
from transphere.training.data.readers import READERS, reader
from transphere.training.errors import UserError


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
