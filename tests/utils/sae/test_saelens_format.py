"""What is written opens in SAELens and behaves the same there; what SAELens writes opens here."""

import pytest
import torch
from planted import MAKERS, randomised

from utils.sae import L1, BatchTopK, JumpReLU, Site, TopK, from_saelens, open_dictionary, save_dictionary, to_saelens

CASES = {
    **{kind: make(16, 40) for kind, make in MAKERS.items()},
    "transcoder": L1(16, 40, d_out=11),
    "skip_transcoder": L1(16, 40, d_out=11, skip=True),
    "jumprelu_transcoder": JumpReLU(16, 40, d_out=11),
    "batchtopk_skip_transcoder": BatchTopK(16, 40, k=3, d_out=11, skip=True),
}


@pytest.fixture(params=CASES)
def dictionary(request):
    dictionary = randomised(CASES[request.param]).eval().requires_grad_(False)
    dictionary.site = Site("blocks.1.hook_in", "blocks.1.hook_out" if dictionary.is_transcoder else None)
    return dictionary


def same(theirs, ours, x):
    torch.testing.assert_close(theirs.encode(x), ours.encode(x))
    torch.testing.assert_close(theirs(x), ours(x))


def test_saelens_opens_the_folder_and_gives_the_same_latents_and_output(dictionary, tmp_path):
    from sae_lens import SAE

    save_dictionary(dictionary, tmp_path)
    sae = SAE.load_from_disk(tmp_path)
    same(sae, dictionary, torch.randn(6, 5, 16))
    assert sae.cfg.metadata.hook_name == "blocks.1.hook_in"
    assert sae.cfg.metadata.hook_name_out == dictionary.site.writes


def test_reading_back_gives_the_same_dictionary(dictionary, tmp_path):
    save_dictionary(dictionary, tmp_path)
    again = open_dictionary(tmp_path)
    same(again, dictionary, torch.randn(30, 16))
    assert again.site == dictionary.site
    assert not any(parameter.requires_grad for parameter in again.parameters())


def test_objects_convert_both_ways(dictionary):
    sae = to_saelens(dictionary)
    same(sae, dictionary, torch.randn(30, 16))
    same(from_saelens(sae), dictionary, torch.randn(30, 16))


def test_half_precision_files_open_as_float32_in_both(tmp_path):
    from sae_lens import SAE

    dictionary = randomised(TopK(16, 40, k=3)).eval()
    save_dictionary(dictionary, tmp_path, torch.float16)
    x = torch.randn(30, 16)
    ours, theirs = open_dictionary(tmp_path), SAE.load_from_disk(tmp_path)
    assert ours.W_dec.dtype == theirs.W_dec.dtype == torch.float32
    same(theirs, ours, x)


@pytest.mark.parametrize("architecture", ["topk", "standard", "gated", "jumprelu"])
def test_saelens_s_other_conventions_are_converted_exactly(architecture):
    """No decoder bias taken from the input; latents rescaled by the decoder's norm."""
    import sae_lens

    extra = {"k": 3, "rescale_acts_by_decoder_norm": True} if architecture == "topk" else {}
    config = {"architecture": architecture, "d_in": 16, "d_sae": 40, "apply_b_dec_to_input": False, **extra}
    sae = sae_lens.SAE.from_dict({**config, "metadata": {}})
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    same(sae, from_saelens(sae), torch.randn(30, 16))


def test_what_cannot_be_written_or_read_says_so(tmp_path):
    with pytest.raises(ValueError, match="SAELens has no topk transcoder"):
        save_dictionary(TopK(16, 40, k=3, d_out=11), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"it has no cfg\.json"):
        open_dictionary(tmp_path / "nothing")
    save_dictionary(L1(16, 40), tmp_path)
    config = tmp_path / "cfg.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"none"', '"layer_norm"', 1), encoding="utf-8")
    with pytest.raises(ValueError, match="normalize_activations='layer_norm' is not read here"):
        open_dictionary(tmp_path)
