"""A circuit report: its verdicts are those of its numbers, and its page needs nothing else."""

import re

import plotly.graph_objects as go
import pytest
import torch

from utils.circuits.report import CircuitReport, Finding

DRAWN = torch.randn(200, generator=torch.Generator().manual_seed(0))


def finding(shift, sentence="heads <move> names"):
    return Finding.measured(sentence, DRAWN + shift, DRAWN.flip(0), "random heads")


@pytest.mark.parametrize(("shift", "stands"), [(2.0, True), (-2.0, True), (0.0, False), (0.05, False)])
def test_a_finding_stands_where_its_interval_and_the_control_s_have_nothing_in_common(shift, stands):
    found = finding(shift)
    assert found.stands == stands
    assert found.low < found.value < found.high
    assert found.value == pytest.approx((DRAWN + shift).mean().item())
    assert found.n == 200


def test_the_page_holds_every_claim_figure_and_limit_and_no_link_to_the_network():
    figures = [go.Figure(go.Bar(y=[1, 2]), layout={"title": {"text": f"figure {i}"}}) for i in range(2)]
    page = CircuitReport("Two heads", "Who?", [finding(2), finding(0)], figures, ["Not on GPT-2."]).html()
    assert "heads &lt;move&gt; names" in page
    assert page.count("<td>stands</td>") == page.count("does not stand") == 1
    assert page.count("<figure>") == 2
    assert "Not on GPT-2." in page
    assert page.count("plotly.js v") == 1  # its program once, in the page
    assert not re.search(r'<script[^>]+src="https?:', page)
    assert "size: A4" in page


def test_a_report_without_claims_or_limits_is_refused_and_other_files_too(tmp_path):
    with pytest.raises(ValueError, match="at least one finding"):
        CircuitReport("x", "y", [], limits=["z"])
    with pytest.raises(ValueError, match="not tested"):
        CircuitReport("x", "y", [finding(1)])
    report = CircuitReport("x", "y", [finding(1)], limits=["z"])
    with pytest.raises(ValueError, match=r"\.html, not as 'report\.pdf'"):
        report.save(tmp_path / "report.pdf")
    assert report.save(tmp_path / "report.html").read_text(encoding="utf-8") == report.html()
