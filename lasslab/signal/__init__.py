"""Waveforms and their time-frequency pictures: audio files, the STFT and its masks, mel spectrograms."""
