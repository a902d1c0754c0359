"""Sampling of FlowSep's kind: what a clip costs, where the time goes, and the obvious way beside it.

    lasslab bench generation                         the shipped flowsep-lab: a 5 s clip, 10 guided steps
    lasslab bench generation --steps 1 5 10 50       a table over steps
    lasslab bench generation --size full --device cuda --seconds 10.24 --precision bf16 --compile --batch-sizes 1 4 16
                                                     FlowSep's size with weights of no meaning: speed does not need them

The obvious way, in the same run: each branch of the guidance in a call of its own, and the text encoded at every step.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from measure import machine, markdown_table, measure

from lasslab.evaluation.cost import Meter
from lasslab.flow import solve, time_grid
from lasslab.models.bigvgan import SIZES as VOCODER_SIZES
from lasslab.models.bigvgan import BigVGAN, BigVGANVocoder
from lasslab.models.text import TextEmbedding, TextEncoder, load_text_encoder
from lasslab.models.vae import SIZES as VAE_SIZES
from lasslab.models.vae import MelVAE
from lasslab.models.velocity import SIZES, VelocityNetwork, condition_on
from lasslab.signal.audio import SAMPLE_RATE
from lasslab.systems.separation import FlowSeparator, load_separator

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
QUERY = "a dog barking"


class Clock(torch.nn.Module):
    """A network, or any other call, that remembers the seconds of each call."""

    def __init__(self, call: Callable) -> None:
        super().__init__()
        self.call, self.config, self.seconds = call, getattr(call, "config", None), []

    def forward(self, *args: object, **arguments: object) -> torch.Tensor:
        """The call's answer."""
        synchronise()
        started = time.perf_counter()
        answer = self.call(*args, **arguments)
        synchronise()
        self.seconds.append(time.perf_counter() - started)
        return answer


def synchronise() -> None:
    """Wait for the device: it computes while Python goes on."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def untrained(size: str, device: str) -> FlowSeparator:
    """A system of a given size with random weights."""
    torch.manual_seed(0)
    text = load_text_encoder("minilm", device=device)
    with torch.device(device):
        network = VelocityNetwork(SIZES[size])
        vae = MelVAE(VAE_SIZES[size])
        vocoder = BigVGANVocoder(BigVGAN(VOCODER_SIZES[size]), name=size)
    vae.to(memory_format=torch.channels_last)
    if text.dim != network.config.text_dim:  # FLAN-T5-large's
        text = Widened(text, network.config.text_dim)
    return FlowSeparator(network.eval(), vae.eval(), vocoder, text, window_seconds=10.24, name=size)


class Widened:
    """A text encoder whose token embeddings are repeated to another width: what a bigger one would give, in shape."""

    def __init__(self, encoder: TextEncoder, dim: int) -> None:
        self.encoder, self.dim, self.name = encoder, dim, encoder.name

    def to(self, device: torch.device | str) -> "Widened":
        """Move the encoder."""
        self.encoder.to(device)
        return self

    def __call__(self, texts: Sequence[str]) -> TextEmbedding:
        """As `TextEncoder.__call__`."""
        found = self.encoder(texts)
        times = -(-self.dim // found.tokens.shape[-1])
        return found._replace(tokens=found.tokens.repeat(1, 1, times)[..., : self.dim])


def naive(system: FlowSeparator, mixtures: torch.Tensor, n_steps: int, scale: float) -> torch.Tensor:
    """The obvious loop: the text encoded at every step, the two branches of the guidance in two calls."""
    latents, gain = system.codec.encode(mixtures[:, None])
    mixture = latents[:, 0]

    def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        text = system.text_encoder.encoder([QUERY] * len(x)).to(x.device)
        condition, null = condition_on(mixture, text)
        with_words = system.network(x, t.expand(len(x)), **condition)
        without = system.network(x, t.expand(len(x)), **null)
        return without + scale * (with_words - without)

    made = solve(field, torch.randn_like(mixture), time_grid(n_steps))
    return system.codec.decode(made[:, None], gain, n_samples=mixtures.shape[-1])


def compile_networks(system: FlowSeparator, device: torch.device) -> None:
    """Compile everything that has weights; on CUDA each call is also captured as a graph, which spares its launches."""
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    vae, vocoder = system.codec.vae.blocks, system.codec.vocoder.network
    for module, name in ((system.network, "forward"), (vae, "encode"), (vae, "decode"), (vocoder, "forward")):
        setattr(module, name, torch.compile(getattr(module, name), mode=mode))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--system", default="flowsep-lab")
    parser.add_argument("--size", choices=sorted(SIZES), help="random weights of this size instead of --system")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument("--compile", action="store_true", help="torch.compile the network, VAE and vocoder")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--steps", type=int, nargs="+", default=[10])
    parser.add_argument("--guidance", type=float, default=2.0)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1])
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args(arguments)
    if options.size:
        system = untrained(options.size, options.device)
    else:
        system = load_separator(options.system, device=options.device)
    device = torch.device(options.device)
    if options.compile:
        compile_networks(system, device)
    network, generate = system.network, system.generate
    precision = PRECISIONS[options.precision]
    lowered = contextlib.nullcontext() if precision == torch.float32 else torch.autocast(device.type, precision)
    rows = []
    for batch in options.batch_sizes:
        for n_steps in options.steps:
            generator = torch.Generator().manual_seed(0)
            mixtures = 0.1 * torch.randn(batch, round(options.seconds * SAMPLE_RATE), generator=generator)
            settings = {"n_steps": n_steps, "guidance_scale": options.guidance}
            queries = [QUERY] * batch
            mixtures = mixtures.to(options.device)

            def ours(mixtures=mixtures, queries=queries, settings=settings) -> None:
                system.separate_batch(mixtures, queries, **settings)
                synchronise()

            def obvious(mixtures=mixtures, n_steps=n_steps) -> None:
                naive(system, mixtures, n_steps, options.guidance)
                synchronise()

            def codec(mixtures=mixtures) -> None:
                latents, gain = system.codec.encode(mixtures[:, None])
                system.codec.decode(latents, gain, n_samples=mixtures.shape[-1])
                synchronise()

            with torch.inference_mode(), lowered:
                memory = Meter(device, batch)  # of the first call: later ones find what it allocated
                memory.run(ours, n_clips=batch)
                total = measure(ours, n_runs=options.runs).wall
                ends = measure(codec, n_runs=options.runs).wall
                plain = measure(obvious, n_runs=max(1, options.runs // 2)).wall
                system.network, system.generate = Clock(network), Clock(generate)
                for _ in range(options.runs):
                    ours()
                in_calls = system.network.seconds
                inside, sampling = sum(in_calls), sum(system.generate.seconds)
                system.network, system.generate = network, generate
            rows.append(
                [
                    batch,
                    n_steps,
                    f"{total:.3f}",
                    f"{statistics.median(in_calls):.4f}",  # as every time here: one slow call says nothing
                    f"{ends:.3f}",
                    f"{100 * (sampling - inside) / sampling:.1f}",
                    f"{total / batch:.3f}",
                    f"{memory.peak / 2**20:.0f}",
                    f"{plain / total:.2f}",
                ]
            )
    compiled = ", compiled" if options.compile else ""
    print(f"{system.name}, {options.seconds:g} s clips, guidance {options.guidance:g}, {options.precision}{compiled}")
    print(machine(options.device))
    times = ["s", "s a call", "s VAE + vocoder", "% outside calls", "s a clip"]
    print(markdown_table(["batch", "steps", *times, "peak, MiB", "obvious way takes"], rows))
    print(f"peak: {memory.to_json()['memory']}")


if __name__ == "__main__":
    main()
