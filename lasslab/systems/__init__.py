"""Systems: a waveform and words in, a waveform of the same shape, rate and level out."""
