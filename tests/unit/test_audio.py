"""Sound files, rates, lengths and loudness: round trips, analytic answers, and bad input."""

import math
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import soundfile
import torch

from lasslab.signal import audio
from lasslab.signal.audio import (
    BLOCK_FRAMES,
    check_waveform,
    fit_length,
    load_audio,
    loudness,
    normalise_loudness,
    read_audio,
    read_blocks,
    resample,
    save_audio,
    save_blocks,
    scan_audio,
    to_mono,
)

RATES = [8000, 16_000, 22_050, 44_100, 48_000]
# error of a sine relative to it: none, the steps of 24 bits, and two lossy codecs
TOLERANCE = {".wav": 0.0, ".flac": 3e-7, ".ogg": 0.05, ".mp3": 0.05}


def sine(frequency: float, *, seconds: float = 1.0, sample_rate: int = 16_000, amplitude: float = 1.0) -> torch.Tensor:
    n = torch.arange(int(seconds * sample_rate), dtype=torch.float64)  # a float32 phase drifts by 1e-3
    return (amplitude * torch.sin(2 * math.pi * frequency / sample_rate * n)).float()


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# --- files


@pytest.mark.parametrize(
    ("suffix", "n_channels"),
    [(suffix, n_channels) for suffix in TOLERANCE for n_channels in (1, 2, 6) if (suffix, n_channels) != (".mp3", 6)],
)
@pytest.mark.parametrize("sample_rate", RATES)
def test_file_round_trip(tmp_path, suffix, sample_rate, n_channels):
    gains = torch.linspace(0.5, 0.1, n_channels)[:, None]
    waveform = gains * sine(100, sample_rate=sample_rate)  # low enough for the LFE of a 5.1 Vorbis file
    path = tmp_path / f"tone{suffix}"
    save_audio(path, waveform, sample_rate=sample_rate)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again, rate = read_audio(path)
    assert rate == sample_rate and again.dtype == torch.float32 and again.shape == waveform.shape
    assert (again - waveform).norm() <= TOLERANCE[suffix] * waveform.norm()
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", TOLERANCE)
@pytest.mark.parametrize("sample_rate", RATES)
def test_load_brings_any_file_to_16_khz_mono(tmp_path, suffix, sample_rate):
    path = tmp_path / f"tone{suffix}"
    save_audio(
        path,
        torch.stack([sine(440, sample_rate=sample_rate, amplitude=0.8), torch.zeros(sample_rate)]),
        sample_rate=sample_rate,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        waveform = load_audio(path)
        both = load_audio(path, mono=False)
    assert waveform.shape == (16_000,) and both.shape == (2, 16_000)
    expected = sine(440, amplitude=0.4)
    assert (waveform - expected).norm() < 0.1 * expected.norm()
    torch.testing.assert_close(to_mono(both), waveform, rtol=0, atol=1e-5)


def test_one_dimension_is_one_channel(tmp_path):
    save_audio(tmp_path / "a.wav", noise(100), sample_rate=16_000)
    assert torch.equal(read_audio(tmp_path / "a.wav")[0], noise(100)[None])


def test_suffix_may_be_upper_case_and_the_path_text(tmp_path):
    save_audio(str(tmp_path / "A.WAV"), noise(100), sample_rate=8000)
    assert read_audio(str(tmp_path / "A.WAV"))[1] == 8000


def test_wav_is_float_and_keeps_what_exceeds_full_scale(tmp_path):
    loud = 3 * noise(2, 1000)
    save_audio(tmp_path / "loud.wav", loud, sample_rate=16_000)
    assert soundfile.info(tmp_path / "loud.wav").subtype == "FLOAT"
    assert torch.equal(read_audio(tmp_path / "loud.wav")[0], loud)


@pytest.mark.parametrize("suffix", [".flac", ".ogg", ".mp3"])
def test_format_that_would_clip_is_refused(tmp_path, suffix):
    path = tmp_path / f"loud{suffix}"
    with pytest.raises(ValueError, match=r"loud.* would clip, its peak is 1\.5 of 1: .*save as \.wav"):
        save_audio(path, sine(440, amplitude=1.5), sample_rate=16_000)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_full_scale_does_not_wrap_around(tmp_path, suffix):
    square = torch.tensor([1.0, -1.0]).repeat(500)
    save_audio(tmp_path / f"square{suffix}", square, sample_rate=16_000)
    assert (read_audio(tmp_path / f"square{suffix}")[0][0] - square).abs().max() < 1e-6


def test_minutes_of_ogg_are_written(tmp_path):
    # one call with this many samples overflows the stack of libsndfile's Vorbis encoder
    waveform = 0.1 * noise(1, 16_000 * 150)
    save_audio(tmp_path / "long.ogg", waveform, sample_rate=16_000)
    assert soundfile.info(tmp_path / "long.ogg").frames == 16_000 * 150


def test_16_bit_and_8_bit_files_are_scaled_to_one(tmp_path):
    for subtype, step in (("PCM_16", 2**-15), ("PCM_U8", 2**-7)):
        soundfile.write(tmp_path / "a.wav", np.array([0.5, -0.5, 0.25]), 16_000, subtype)
        assert (read_audio(tmp_path / "a.wav")[0][0] - torch.tensor([0.5, -0.5, 0.25])).abs().max() <= step


# --- files as streams


@pytest.mark.parametrize("suffix", TOLERANCE)
@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("n_block", [1000, BLOCK_FRAMES, 10**9])
def test_blocks_put_together_are_the_file(tmp_path, suffix, n_channels, n_block):
    path = tmp_path / f"a{suffix}"
    save_audio(path, 0.2 * noise(n_channels, 150_000), sample_rate=44_100)
    whole, rate = read_audio(path)
    blocks = list(read_blocks(path, n_samples=n_block))
    assert all(block.shape == (n_channels, n_block) for block in blocks[:-1])
    # the MP3 decoder rounds differently in blocks
    torch.testing.assert_close(torch.cat(blocks, dim=-1), whole, rtol=0, atol=1e-6 if suffix == ".mp3" else 0)
    scan = scan_audio(path)
    assert (scan.sample_rate, scan.n_channels, scan.n_samples) == (rate, n_channels, whole.shape[-1])
    assert scan.peak == pytest.approx(whole.abs().max().item(), abs=1e-6)
    assert scan.rms == pytest.approx(whole.square().mean().sqrt().item(), rel=1e-5)


@pytest.mark.parametrize("suffix", TOLERANCE)
@pytest.mark.parametrize("n_block", [1, 999, BLOCK_FRAMES, BLOCK_FRAMES + 1])
def test_a_file_does_not_depend_on_the_blocks_it_came_in(tmp_path, suffix, n_block):
    waveform = 0.2 * noise(2, 2 * n_block + 7 if n_block > 1 else 3000)
    save_audio(tmp_path / f"whole{suffix}", waveform, sample_rate=16_000)
    blocks = (block for block in waveform.split(n_block, dim=-1))
    save_blocks(tmp_path / f"blocks{suffix}", blocks, sample_rate=16_000, n_channels=2)
    assert torch.equal(read_audio(tmp_path / f"blocks{suffix}")[0], read_audio(tmp_path / f"whole{suffix}")[0])


def test_silence_and_broken_samples_are_found_wherever_they_are(tmp_path):
    path = tmp_path / "a.wav"
    for samples, peak in (
        (torch.zeros(200_000), 0.0),
        (torch.cat([torch.zeros(200_000), torch.tensor([-0.25])]), 0.25),
    ):
        save_audio(path, samples, sample_rate=8000)
        assert scan_audio(path).peak == peak
    late = np.zeros(200_000, dtype=np.float32)
    late[-1] = np.inf
    soundfile.write(path, late, 8000, "FLOAT")
    with pytest.raises(ValueError, match=r"a\.wav has NaN or infinite samples"):
        scan_audio(path)
    blocks = read_blocks(path, n_samples=150_000)
    assert not next(blocks).any()
    with pytest.raises(ValueError, match=r"a\.wav has NaN or infinite samples"):
        next(blocks)


def test_more_than_a_wav_can_count_becomes_rf64(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "WAV_LIMIT", 4 * 2 * 1000)
    parts = noise(2, 2500).split(100, dim=-1)
    for n_samples, kind in ((1000, "WAV"), (2500, "RF64")):
        blocks = parts[: n_samples // 100]
        save_blocks(tmp_path / "a.wav", blocks, sample_rate=8000, n_channels=2, n_samples=n_samples)
        assert soundfile.info(tmp_path / "a.wav").format == kind
        assert torch.equal(read_audio(tmp_path / "a.wav")[0], noise(2, 2500)[:, :n_samples])
        (tmp_path / "a.wav").unlink()
    with pytest.raises(ValueError, match=r"a\.wav would grow beyond 4 GiB.*: save as \.flac"):
        save_blocks(tmp_path / "a.wav", parts, sample_rate=8000, n_channels=2)
    save_audio(tmp_path / "b.wav", noise(2, 2500), sample_rate=8000)  # its length is known
    assert [path.name for path in tmp_path.iterdir()] == ["b.wav"]


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([], r"no samples for .*a\.flac"),
        ([noise(2, 10), noise(10)], "a block for .* must have 2 dimensions"),
        ([noise(2, 10), noise(3, 10)], r"a\.flac has 2 channels, got a block of shape \(3, 10\)"),
        ([noise(2, 10), torch.full((2, 10), math.nan)], "NaN or infinite"),
        ([noise(2, 8000), torch.full((2, 10), -1.5)], r"a\.flac would clip, its peak is 1\.5 of 1 at 1\.00 s: lower"),
    ],
)
def test_a_bad_block_ends_the_file(tmp_path, blocks, message):
    with pytest.raises(ValueError, match=message):
        save_blocks(tmp_path / "a.flac", iter(blocks), sample_rate=8000, n_channels=2)
    assert not any(tmp_path.iterdir())


def test_bad_arguments_of_a_stream(tmp_path):
    with pytest.raises(ValueError, match="does not exist"):
        next(read_blocks(tmp_path / "none.wav"))
    with pytest.raises(ValueError, match="at least 1 sample, got 0"):
        next(read_blocks(tmp_path / "none.wav", n_samples=0))
    with pytest.raises(ValueError, match="no known audio suffix"):
        save_blocks(tmp_path / "a.txt", [noise(1, 10)], sample_rate=8000, n_channels=1)


# --- files that are none


def text_file(path):
    path.write_text("this is no sound\n" * 100)


def header_only(path):
    soundfile.write(path, np.zeros((0, 1), dtype=np.float32), 16_000, "FLOAT", format="WAV")


def with_sample(value):
    def write(path):
        samples = np.zeros(100, dtype=np.float32)
        samples[50] = value
        soundfile.write(path, samples, 16_000, "FLOAT")

    return write


def cut_in_the_header(path):
    soundfile.write(path, np.zeros(100), 16_000)
    path.write_bytes(path.read_bytes()[:20])


BAD_FILES = [
    ("missing.wav", lambda path: None, "does not exist: check the path"),
    ("folder.wav", lambda path: path.mkdir(), "is a folder: give the path of one audio file"),
    ("empty.wav", lambda path: path.touch(), "is an empty file: record or download it again"),
    ("text.wav", text_file, "cannot be read as audio: convert it to WAV, FLAC, OGG or MP3"),
    ("text.mp3", text_file, "cannot be read as audio: convert it to WAV, FLAC, OGG or MP3"),
    ("text.flac", text_file, "cannot be read as audio: convert it to WAV, FLAC, OGG or MP3"),
    ("text.ogg", text_file, "cannot be read as audio: convert it to WAV, FLAC, OGG or MP3"),
    ("cut.wav", cut_in_the_header, "cannot be read as audio|holds no samples"),
    ("header.wav", header_only, "holds no samples: record or download it again"),
    ("nan.wav", with_sample(math.nan), "has NaN or infinite samples: export it again"),
    ("inf.wav", with_sample(-math.inf), "has NaN or infinite samples: export it again"),
]


@pytest.mark.parametrize(("name", "make", "message"), BAD_FILES, ids=[name for name, _, _ in BAD_FILES])
def test_bad_file_is_named_in_one_line_with_a_remedy(tmp_path, capfd, name, make, message):
    path = tmp_path / name
    make(path)
    for read in (read_audio, load_audio, scan_audio, lambda path: list(read_blocks(path)) or read_audio(path)):
        with pytest.raises(ValueError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


# --- writing that fails


@pytest.mark.parametrize("existing", [b"what was there before", None])
def test_failed_write_leaves_the_folder_as_it_was(tmp_path, monkeypatch, existing):
    path = tmp_path / "out.wav"
    if existing:
        path.write_bytes(existing)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(ValueError, match=r"out\.wav cannot be written \(No space left on device\)"):
        save_audio(path, noise(100), sample_rate=16_000)
    assert [entry.name for entry in tmp_path.iterdir()] == (["out.wav"] if existing else [])
    assert not existing or path.read_bytes() == existing


def test_disk_that_fills_up_leaves_no_file(tmp_path):
    # a process that may write 1000 bytes per file: the write itself fails, half way
    code = (
        "import resource, sys, torch; from lasslab.signal.audio import save_audio\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "for path in sys.argv[1:]:\n"
        "    try: save_audio(path, torch.rand(16_000), sample_rate=16_000)\n"
        "    except ValueError as error: print(error)\n"
    )
    paths = [str(tmp_path / f"out{suffix}") for suffix in TOLERANCE]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True)
    expected = [f"{path} cannot be written (File too large): check space and rights" for path in paths]
    assert done.stdout.splitlines() == expected
    assert done.stderr == "" and not any(tmp_path.iterdir())


def test_disk_that_fills_up_in_the_middle_of_a_stream_leaves_no_file(tmp_path):
    code = (
        "import resource, sys, torch; from lasslab.signal.audio import save_blocks\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "for path in sys.argv[1:]:\n"
        "    blocks = (torch.rand(1, 50_000) for _ in range(40))\n"
        "    try: save_blocks(path, blocks, sample_rate=16_000, n_channels=1)\n"
        "    except ValueError as error: print(error)\n"
    )
    paths = [str(tmp_path / f"out{suffix}") for suffix in TOLERANCE]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        f"{path} cannot be written (File too large): check space and rights" for path in paths
    ]
    assert done.stderr == "" and not any(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", TOLERANCE)
def test_ctrl_c_inside_the_encoder_is_not_lost(tmp_path, monkeypatch, capfd, suffix):
    # libsndfile calls back into Python to write; an exception there would be printed and forgotten
    class Interrupted:
        def __init__(self, file):
            self.file, self.left = file, 3

        def __getattr__(self, name):
            return getattr(self.file, name)

        def __enter__(self):
            return self.file.__enter__()

        def __exit__(self, *error):
            return self.file.__exit__(*error)

        def write(self, data):
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return self.file.write(data)

    class Sink(audio._Sink):
        def __init__(self, path):
            super().__init__(path)
            self.file = Interrupted(self.file)

    monkeypatch.setattr(audio, "_Sink", Sink)
    with pytest.raises(KeyboardInterrupt):
        save_blocks(tmp_path / f"a{suffix}", iter(0.1 * noise(20, 1, 50_000)), sample_rate=16_000, n_channels=1)
    assert not any(tmp_path.iterdir()) and capfd.readouterr() == ("", "")


def test_interrupted_write_leaves_no_file(tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_audio(tmp_path / "out.wav", noise(100), sample_rate=16_000)
    assert not any(tmp_path.iterdir())


def test_saved_file_has_the_usual_rights(tmp_path):
    (tmp_path / "plain").touch()
    save_audio(tmp_path / "a.wav", noise(100), sample_rate=16_000)
    assert (tmp_path / "a.wav").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("name", "waveform", "sample_rate", "message"),
    [
        ("a.txt", noise(100), 16_000, r"no known audio suffix: use one of \.wav, \.flac, \.ogg, \.mp3"),
        ("a", noise(100), 16_000, "no known audio suffix"),
        ("no/a.wav", noise(100), 16_000, "there is no folder .*no: make it first"),
        ("a.wav", noise(0), 16_000, "at least 1 samples"),
        ("a.wav", torch.tensor([math.nan]), 16_000, "NaN or infinite"),
        ("a.wav", noise(2, 3, 4), 16_000, "1 or 2 dimensions"),
        (
            "a.mp3",
            noise(6, 100),
            16_000,
            "cannot hold 6 channels at 16000 Hz in MP3: .*to_mono, or save as .wav",
        ),
        ("a.mp3", noise(100), 96_000, "cannot hold 1 channels at 96000 Hz in MP3: resample"),
        ("a.flac", noise(9, 100), 16_000, "cannot hold 9 channels at 16000 Hz in FLAC"),
        ("a.wav", noise(100), 0, "cannot hold 1 channels at 0 Hz in WAV"),
    ],
)
def test_what_cannot_be_saved_is_refused(tmp_path, name, waveform, sample_rate, message):
    with pytest.raises(ValueError, match=message) as caught:
        save_audio(tmp_path / name, waveform, sample_rate=sample_rate)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_folder_as_destination_is_refused(tmp_path):
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        save_audio(tmp_path / "a.wav", noise(100), sample_rate=16_000)


# --- rate, channels, length


@pytest.mark.parametrize("orig_rate", RATES)
@pytest.mark.parametrize("new_rate", RATES)
def test_resampled_sine_keeps_frequency_and_amplitude(orig_rate, new_rate):
    tone = sine(1000, seconds=1, sample_rate=orig_rate, amplitude=0.7)
    converted = resample(tone, orig_rate=orig_rate, new_rate=new_rate)
    assert converted.shape == (new_rate,) and converted.dtype == torch.float32
    expected = sine(1000, seconds=1, sample_rate=new_rate, amplitude=0.7)  # bin 1000 of a one-second transform
    middle = slice(new_rate // 10, -new_rate // 10)
    assert (converted - expected)[middle].abs().max() < 1e-5
    assert torch.fft.rfft(converted).abs().argmax() == 1000


def test_resampling_removes_what_the_new_rate_cannot_hold():
    tone = sine(15_000, sample_rate=48_000)
    assert resample(tone, orig_rate=48_000, new_rate=16_000)[500:-500].abs().max() < 1e-4


def test_resampling_rows_is_resampling_each():
    waveform = noise(2, 3, 4410)
    converted = resample(waveform, orig_rate=44_100, new_rate=16_000)
    assert converted.shape == (2, 3, 1600)
    assert torch.equal(converted[1, 2], resample(waveform[1, 2], orig_rate=44_100, new_rate=16_000))


@pytest.mark.parametrize("n_samples", [1, 2, 3, 100])
def test_resampling_a_few_samples(n_samples):
    converted = resample(noise(n_samples), orig_rate=48_000, new_rate=16_000)
    assert converted.shape == (max(1, round(n_samples / 3)),) and converted.isfinite().all()


@pytest.mark.parametrize(("orig_rate", "new_rate"), [(0, 16_000), (16_000, -1), (16_000, 8000.5)])
def test_impossible_rate_is_refused(orig_rate, new_rate):
    with pytest.raises(ValueError, match="_rate must be a positive whole number of Hz"):
        resample(noise(100), orig_rate=orig_rate, new_rate=new_rate)


def test_nothing_cannot_be_resampled():
    with pytest.raises(ValueError, match="must have samples"):
        resample(noise(2, 0), orig_rate=8000, new_rate=16_000)


def test_to_mono_is_the_mean():
    assert to_mono(torch.tensor([[1.0, 0.0], [0.0, 0.5], [-0.4, 0.1]])).tolist() == pytest.approx([0.2, 0.2])
    with pytest.raises(ValueError, match=r"shape \(C, T\)"):
        to_mono(noise(10))


def test_fit_length_crops_and_pads():
    waveform = torch.arange(1.0, 6.0).expand(2, 5)
    assert fit_length(waveform, 3)[0].tolist() == [1, 2, 3]
    assert fit_length(waveform, 3, offset=1)[1].tolist() == [2, 3, 4]
    assert fit_length(waveform, 7)[0].tolist() == [1, 2, 3, 4, 5, 0, 0]
    assert fit_length(waveform, 3, offset=4)[0].tolist() == [5, 0, 0]
    assert fit_length(waveform, 2, offset=5)[0].tolist() == [0, 0]


@pytest.mark.parametrize(("n_samples", "offset"), [(0, 0), (-1, 0), (3, -1), (3, 6)])
def test_fit_length_refuses(n_samples, offset):
    with pytest.raises(ValueError, match="n_samples must be|offset must be"):
        fit_length(torch.ones(5), n_samples, offset=offset)


# --- loudness


@pytest.mark.parametrize("sample_rate", [16_000, 22_050, 44_100, 48_000])
def test_full_scale_sine_is_minus_3_01_lufs(sample_rate):
    # ITU-R BS.1770: 0 dBFS at 997 Hz on one front channel; EBU Tech 3341 allows 0.1 LU
    tone = sine(997, seconds=3, sample_rate=sample_rate)
    assert loudness(tone, sample_rate=sample_rate) == pytest.approx(-3.01, abs=0.1)
    stereo = torch.stack([tone, tone])  # twice the power
    assert loudness(stereo, sample_rate=sample_rate) == pytest.approx(0.0, abs=0.1)


def test_surround_channels_count_more_and_the_lfe_not():
    tone = sine(997, seconds=1)
    measured = [loudness(torch.eye(6)[c][:, None] * tone, sample_rate=16_000) for c in range(6)]
    front = loudness(tone, sample_rate=16_000)
    assert measured[:3] == pytest.approx([front] * 3, abs=1e-6)
    assert measured[3] == -math.inf
    assert measured[4:] == pytest.approx([front + 10 * math.log10(1.41)] * 2, abs=1e-6)
    with pytest.raises(ValueError, match="up to 6 channels, got 7"):
        loudness(noise(7, 16_000), sample_rate=16_000)


def test_gates_ignore_pauses():
    tone = sine(997, seconds=4, amplitude=0.5)
    with_pauses = torch.cat([tone, torch.zeros(16_000 * 6)])
    assert loudness(with_pauses, sample_rate=16_000) == pytest.approx(loudness(tone, sample_rate=16_000), abs=0.3)


@pytest.mark.parametrize("seconds", [0.05, 0.1, 0.2, 0.399])
def test_short_clip_is_as_loud_as_its_repetition(seconds):
    clip = sine(1000, seconds=seconds, amplitude=0.5)
    long = sine(1000, seconds=0.4, amplitude=0.5)
    assert loudness(clip, sample_rate=16_000) == pytest.approx(loudness(long, sample_rate=16_000), abs=0.3)


@pytest.mark.parametrize("waveform", [torch.zeros(10), torch.zeros(2, 16_000), 1e-5 * torch.ones(16_000)])
def test_silence_is_infinitely_quiet_without_a_warning(waveform):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert loudness(waveform, sample_rate=16_000) == -math.inf
        with pytest.raises(ValueError, match="silent clip cannot be brought to -23 LUFS"):
            normalise_loudness(waveform, lufs=-23, sample_rate=16_000)


@pytest.mark.parametrize("lufs", [-35.0, -23.0, -10.0])
def test_normalised_clip_has_the_loudness(lufs):
    waveform = noise(2, 48_000)
    before = waveform.clone()
    scaled = normalise_loudness(waveform, lufs=lufs, sample_rate=16_000)
    assert loudness(scaled, sample_rate=16_000) == pytest.approx(lufs, abs=1e-3)
    assert torch.equal(waveform, before) and scaled.dtype == torch.float32
    ratio = scaled / waveform
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio))


# --- waveform check


def test_usable_waveform_is_returned_as_it_is():
    waveform = noise(2, 10)
    assert check_waveform(waveform, min_samples=10) is waveform
    assert check_waveform(noise(3, 2, 10), dims=(1, 2, 3)).shape == (3, 2, 10)


@pytest.mark.parametrize(
    ("waveform", "message"),
    [
        (np.zeros(10), "query clip must be a torch tensor, got ndarray"),
        ([0.0, 1.0], "query clip must be a torch tensor, got list"),
        (torch.zeros(10, dtype=torch.int16), "query clip must hold floats .*int16"),
        (torch.zeros(10, dtype=torch.complex64), "query clip must hold floats"),
        (torch.tensor(0.0), r"query clip must have 1 or 2 dimensions.*\(\)"),
        (torch.zeros(2, 2, 2), r"query clip must have 1 or 2 dimensions.*\(2, 2, 2\)"),
        (torch.zeros(0), "query clip must have at least 4 samples"),
        (torch.zeros(0, 10), "query clip must have at least 4 samples"),
        (torch.zeros(2, 3), r"query clip must have at least 4 samples, got shape \(2, 3\)"),
        (torch.tensor([0.0, math.inf, 0.0, 0.0]), "query clip has NaN or infinite samples"),
    ],
)
def test_unusable_waveform_is_refused_by_name(waveform, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_waveform(waveform, name="query clip", min_samples=4)
    assert "\n" not in str(caught.value)
