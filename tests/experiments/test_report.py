"""The report, as text and in a real browser: complete, self-contained, without errors, fit for a phone."""

import json
import re
import shutil
import subprocess

import imageio.v2 as imageio
import numpy as np
import pytest

from pixelcontrol.experiments.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium on this machine; on Debian: apt-get install -y chromium"
)
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=10000",
    "--dump-dom",
]

# Runs inside the report: uses it as a reader does, and tells the page around it what it found.
PROBE = """<script>
addEventListener("error", (event) => parent.postMessage({ error: event.message }, "*"));
addEventListener("load", () => setTimeout(async () => {
  SVGElement.prototype.setPointerCapture = () => {};  // refuses pointers that no hand holds
  const all = (selector) => [...document.querySelectorAll(selector)];
  const means = () => all("#figures .mean").map((path) => path.getAttribute("d")).join();
  const svg = document.querySelector("#figures svg"), box = svg.getBoundingClientRect();
  const point = (kind, part) => svg.dispatchEvent(new PointerEvent(kind, {
    clientX: box.left + part * box.width, clientY: box.top + 50, pointerType: "mouse", bubbles: true }));
  const found = { overflow: document.documentElement.scrollWidth - innerWidth, width: innerWidth };
  found.charts = all(".chart svg").map((svg) => svg.querySelectorAll(".mean").length);
  found.diamonds = all("#figures .diamond").length;
  found.videos = await Promise.all(all("video").map(async (video) => {
    for (let i = 0; i < 50 && video.readyState < 2; i++) await new Promise((done) => setTimeout(done, 50));
    return [video.videoWidth, video.videoHeight, video.error && video.error.message];
  }));
  point("pointermove", 0.6);
  found.tip = svg.parentElement.querySelector(".tip").textContent;
  const before = means();
  point("pointerdown", 0.4); point("pointermove", 0.8); point("pointerup", 0.8);
  found.zoomed = means() !== before;
  svg.dispatchEvent(new MouseEvent("dblclick"));
  found.unzoomed = means() === before;
  document.querySelector("[data-axis=hour]").click();
  found.hours = means() !== before;
  document.querySelector("#agents button").click();
  found.hidden = all("#figures .mean").length;
  found.loads = performance.getEntriesByType("resource").map((entry) => entry.name.slice(0, 60));
  parent.postMessage(found, "*");
}, 300));
</script>"""
AROUND = """<!doctype html><iframe src="probed.html" style="width:%dpx;height:900px;border:0"></iframe><pre></pre>
<script>addEventListener("message", (event) => {
  document.querySelector("pre").append(JSON.stringify(event.data) + "\\n"); });</script>"""


@pytest.fixture
def report(write_run, tmp_path):
    """Two agents on two tasks with three seeds, one of them filmed."""
    for agent, best in (("drqv2", 800.0), ("sac", 200.0)):
        for task in ("cheetah_run", "walker_walk"):
            for seed in range(3):
                path = write_run(
                    agent=agent,
                    task=task,
                    seed=seed,
                    returns=[0, best / 2, best + seed],
                    every_frames=250_000,
                )
    images = np.random.default_rng(0).integers(0, 255, (20, 84, 84, 3), dtype=np.uint8)
    imageio.mimwrite(path / "eval.mp4", list(images), fps=30, macro_block_size=2)
    return write_report([path.parent], tmp_path / "out" / "report.html")


def browse(report, width):
    """What the probe says after using the report in a window of that width, and the browser's complaints."""
    (report.parent / "probed.html").write_text(report.read_text().replace("</body>", PROBE + "</body>"))
    around = report.parent / "around.html"
    around.write_text(AROUND % width)
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={report.parent / 'browser'}", around.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    said = re.search("<pre>(.*)</pre>", done.stdout, re.DOTALL)
    assert said is not None
    messages = [json.loads(line) for line in said[1].replace("&gt;", ">").splitlines()]
    return messages, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser(report, width):
    messages, complaints = browse(report, width)
    assert complaints == []
    (found,) = messages
    assert found["width"] == width
    assert found["overflow"] <= 0
    assert found["charts"] == [2, 2, 2, 2]  # average, two tasks, profile: two agents in each
    # DrQ-v2 up to 500k: cheetah_run 500k, 240k and five before; walker_walk 100k, 240k, 500k
    assert found["diamonds"] == 7 + 3
    assert found["videos"] == [[84, 84, None]]
    assert found["loads"] == []
    assert "drqv2" in found["tip"]
    assert found["zoomed"]
    assert found["unzoomed"]
    assert found["hours"]
    assert found["hidden"] == 3


@needs_browser
def test_the_probe_sees_a_broken_script(report):
    report.write_text(report.read_text().replace("class Chart {", "class Chart { ???"))
    messages, complaints = browse(report, 390)
    assert complaints
    assert not any("charts" in message and message["charts"] for message in messages)


def test_the_page_loads_nothing(report):
    text = re.sub(r'"data:[^"]*"', '""', report.read_text())
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!#)[^"']+|url\((?!#)[^)]*\)|@import|fetch\(""", text)


def test_scores_stand_beside_the_published_ones(report):
    text = report.read_text()
    assert "<b>801</b>" in text
    assert "603" in text
    assert "ours 801 at 500k" in text
    assert "published 100: 1.0 times" in text


def test_what_is_missing_is_said(report, write_run):
    write_run(agent="sac", task="reacher_hard")
    run = write_run(agent="sac", task="reacher_hard", seed=1)
    config = json.loads((run / "config.json").read_text()) | {"settings": {"frames": 1_000_000}}
    (run / "config.json").write_text(json.dumps(config))
    text = write_report([run.parent], report).read_text()
    assert "sac on reacher_hard, seed 1 ended at 20k of 1M frames." in text
    assert "drqv2 was not run on reacher_hard." in text
    assert "No video of 13 of 14 runs." in text
    assert "21 of the paper&#x27;s 24 tasks" in text
    assert "Fewer than three seeds" in text


def test_the_page_says_of_averages_and_published_curves_what_figures_say(write_run, tmp_path):
    write_run(task="walker_run", returns=[0, 100])  # whose first published frame is 500,000
    write_run(task="toy_reach")
    folder = write_run(task="cheetah_run", returns=[0, 100, 200]).parent
    page = write_report([folder], tmp_path / "report.html").read_text()
    assert "Nothing published that early: walker_run." in page
    assert "Not averaged, for want of some agent or of a known highest return: toy_reach." in page
    assert "The average ends with its shortest task, at 10k frames; the longest has 20k." in page


def test_settings_that_differ_between_tasks_are_told_apart(write_run, tmp_path):
    for task, batch in (("cheetah_run", 256), ("walker_walk", 512)):
        run = write_run(task=task)
        config = json.loads((run / "config.json").read_text()) | {
            "settings": {"batch_size": batch, "frame_stack": 3}
        }
        (run / "config.json").write_text(json.dumps(config))
    text = write_report([run.parent], tmp_path / "report.html").read_text()
    assert "256 <small>cheetah_run</small><br>512 <small>walker_walk</small>" in text
    assert "<td>frame_stack</td><td>3</td>" in text


def test_a_line_breaks_where_there_is_no_number_and_seeds_go_to_their_own_end(write_run, tmp_path):
    write_run(seed=0, returns=[0, float("nan"), 5, 6])
    path = write_run(seed=1, returns=[0, 1, 2])
    text = write_report([path.parent], tmp_path / "report.html").read_text()
    (curve,) = json.loads(re.search('id="data">(.*?)</script>', text)[1])["charts"]["figures"][0]["curves"]
    assert curve["mean"] == [0, None, 3.5]
    assert [run["y"] for run in curve["runs"]] == [[0, None, 5, 6], [0, 1, 2]]
    assert curve["runs"][0]["x"]["frame"][-1] == 30_000


def test_hours_that_nobody_measured_are_not_summed(write_run, tmp_path):
    page = write_report([write_run(frames_per_second=float("nan"))], tmp_path / "report.html").read_text()
    assert "1 runs, 20k frames; commit" in page
    page = write_report([write_run(seed=1)], tmp_path / "report.html").read_text()
    assert "1 runs, 20k frames, 0.1 hours of training; commit" in page


def test_names_cannot_break_the_page(write_run, tmp_path):
    text = write_report([write_run(task="</script><b>")], tmp_path / "report.html").read_text()
    assert "</script><b>" not in text
