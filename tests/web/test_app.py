"""The server as a browser, a foreign page and somebody with a grudge would talk to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest
import yaml
from starlette.testclient import TestClient

import clipsieve
from clipsieve.errors import UsageError
from clipsieve.recipe import Recipe
from clipsieve.web import questions
from clipsieve.web.app import Answers
from clipsieve.web.applying import Applying
from clipsieve.web.chosen import recipe_text
from clipsieve.web.security import HEADERS, Access
from clipsieve.web.state import View
from tests.fakes import image_bytes
from tests.loops import run_async
from tests.web.conftest import HOSTILE, HOSTILE_NAME

LOCAL = "http://127.0.0.1:8765"
KEEP = ["width >= 60", "blur >= 100", "clip_score >= -1"]

Post = Callable[..., dict[str, Any]]


def client_of(answers: Answers, access: Access | None = None, base_url: str = LOCAL) -> TestClient:
    asks = {"X-Clipsieve": "view"}
    app = answers.app(access or Access.at("127.0.0.1", 8765))
    return TestClient(app, base_url=base_url, headers=asks, follow_redirects=False, raise_server_exceptions=False)


@pytest.fixture
def client(served: Answers) -> TestClient:
    return client_of(served)


@pytest.fixture
def post(client: TestClient) -> Post:
    def ask(path: str, **question: Any) -> dict[str, Any]:
        answer = client.post(f"/api/{path}", json=question)
        assert answer.status_code == 200, answer.text
        told: dict[str, Any] = answer.json()
        return told

    return ask


def test_the_page_learns_of_the_run_at_once(client: TestClient) -> None:
    about = client.get("/api/run").json()
    assert about["images"] == 42
    assert about["keep"] == [{"rule": rule} for rule in KEEP]
    assert {score["name"] for score in about["scores"]} >= {"width", "height", "blur", "clip_score"}
    assert about["search"] == ["run"]
    assert about["dedup"] == "dedup exact"
    assert about["words"] == [], "a hash is no word to choose by"
    assert about["suggested"] == "run-apply"


def test_the_runs_own_rules_give_the_runs_own_counts(post: Post, run: clipsieve.Run) -> None:
    told = post("decide", keep=KEEP, histograms=["blur", "no such score"])
    counts = told["counts"]
    images = run.counts.images
    assert counts["kept"] == images.kept
    assert counts["dropped"] + counts["duplicate"] == images.dropped
    assert counts["failed"] == images.failed == 1
    assert counts["gained"] == counts["lost"] == counts["unknown"] == 0
    assert {rule["text"]: rule["out"] for rule in told["rules"]} == {
        text: run.counts.dropped_by.get(text, 0) for text in KEEP
    }
    assert sum(told["histograms"]["blur"]) == images.kept
    assert list(told["histograms"]) == ["blur"]


def test_a_rule_that_moves_moves_the_counts_and_the_gallery(post: Post, run: clipsieve.Run) -> None:
    wider = ["width >= 200", *KEEP[1:]]
    counts = post("decide", keep=wider)["counts"]
    widths = run.ledger["width"].to_pylist()
    assert counts["kept"] + counts["duplicate"] + counts["unknown"] < run.counts.images.kept
    page = post("gallery", keep=wider, show="dropped", by=0, sort="width", order="down", limit=3)
    shown = [image["value"] for image in page["images"]]
    assert shown == sorted((w for w in widths if w is not None and w < 200), reverse=True)[:3]
    assert page["images"][0]["why"] == f"width {shown[0]:g} < 200"
    assert page["images"][0]["was"] == "kept"
    assert post("gallery", keep=wider, show="changed")["total"] == counts["gained"] + counts["lost"]


def test_pages_of_a_gallery_hold_every_image_once(post: Post) -> None:
    found: list[int] = []
    while page := post("gallery", keep=KEEP, order="near", near=1, offset=len(found), limit=7)["images"]:
        found += [image["row"] for image in page]
    assert sorted(found) == list(range(42))
    for far in (42, 10**30):
        assert post("gallery", keep=KEEP, offset=far) == {"total": 42, "score": None, "images": []}
        assert post("groups", keep=KEEP, offset=far)["groups"] == []


def test_what_needs_a_score_that_early_exit_left_out_is_unknown(post: Post) -> None:
    told = post("decide", keep=["clip_score >= -1"])
    assert told["counts"]["unknown"] == told["lacking"]["clip_score"] > 0
    page = post("gallery", keep=["clip_score >= -1"], show="unknown")
    assert page["images"][0]["why"] == "needs clip_score, which the run did not compute"


def test_a_wrong_rule_is_told_with_its_number_and_what_to_do(post: Post) -> None:
    assert post("decide", keep=[*KEEP, "blurr >= 3"])["number"] == 3
    told = post("decide", keep=["blur >= 1", "blur >="])
    assert told["wrong"].startswith("rule 'blur >=': expected a number")
    assert told["number"] == 1
    assert "\n" not in told["wrong"]


def test_rules_joined_by_and_become_rules_of_their_own(post: Post) -> None:
    told = post("decide", keep=["blur >= 1 and width >= 1", {"rule": "height >= 1", "missing": 5}])
    assert told["keep"] == [{"rule": "blur >= 1"}, {"rule": "width >= 1"}, {"rule": "height >= 1", "missing": 5}]
    assert sorted(rule["keep"] for rule in told["rules"]) == [0, 1, 2]


def test_near_duplicates_stand_side_by_side_the_one_that_stays_first(post: Post) -> None:
    told = post("groups", keep=KEEP)
    (group,) = told["groups"]
    assert group["size"] == 2
    group = group["images"]
    assert [image["name"].rpartition("/")[2] for image in group] == ["08.png", "copy.png"]
    assert [image["standing"] for image in group] == ["kept", "duplicate"]


def test_all_that_the_ledger_says_of_an_image(post: Post) -> None:
    told = post("image", keep=["width >= 1000"], row=4)
    assert told["standing"] == "dropped"
    assert told["why"] == "width 80 < 1000"
    assert told["then"] == {"verdict": "kept"}
    assert dict(told["scores"])["width"] == "80"


@pytest.mark.parametrize("row", [-1, 42, 10**30, "x", None])
def test_a_row_that_the_ledger_does_not_have_is_refused(client: TestClient, row: Any) -> None:
    assert client.post("/api/image", json={"keep": [], "row": row}).status_code in (400, 404)
    assert client.get(f"/image/{row}").status_code == 404


@pytest.mark.parametrize(
    "path", ["/image/../rows.jsonl", "/image/%2e%2e/rows.jsonl", "/image//etc/passwd", "/static/../app.py",
             "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/rows.jsonl", "/image/1/../../run/recipe.yaml"],
)  # fmt: skip
def test_nothing_is_fetched_by_path(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


def test_an_image_comes_in_a_few_sizes_and_may_be_kept_for_good_by_its_key(client: TestClient) -> None:
    key = client.get("/api/run").json()["key"]
    answer = client.get(f"/image/4?side=320&v={key}")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert client.get("/image/4?side=320&v=other").headers["cache-control"] == "no-store"
    assert client.get("/image/4").status_code == 200
    for side in ("100000000", "0", "-1", "x", "²", "320x"):
        assert client.get("/image/4", params={"side": side}).status_code == 400


def test_an_image_that_is_gone_or_broken_leaves_its_error_and_caption(client: TestClient) -> None:
    gone = client.get("/image/6")
    assert gone.status_code == 404
    assert gone.headers["cache-control"] == "no-store"
    gone_too, broken = client.get("/api/captions?rows=6,41").json()["captions"]
    assert gone_too["caption"] == "something blue, the 6th"
    assert "06.png" in gone_too["error"] or "missing" in gone_too["error"] or "no such" in gone_too["error"].lower()
    assert broken["error"].startswith("undecodable")
    assert client.get("/image/7").status_code == 200


def test_hostile_captions_and_names_stay_text_without_control_characters(client: TestClient, post: Post) -> None:
    answer = client.get("/api/captions?rows=0,1,2,3,x,-4,99")
    assert answer.headers["content-type"] == "application/json"
    captions = {one["row"]: one["caption"] for one in answer.json()["captions"] if one["caption"]}
    assert captions[0] == HOSTILE[0]
    assert captions[1] == HOSTILE[1]
    assert "\u202e" not in captions[2]
    assert "\x1b" not in captions[2]
    assert len(captions[3]) < 4100
    assert post("image", keep=[], row=5)["reference"].endswith(HOSTILE_NAME)


def test_search_by_text_and_by_an_image_of_the_run(post: Post, client: TestClient) -> None:
    found = post("search", keep=KEEP, row=8)
    assert {found["images"][0]["row"], found["images"][1]["row"]} == {8, 40}
    assert found["images"][0]["similarity"] == pytest.approx(1, abs=1e-4)
    told = post("search", keep=KEEP, text="something red", limit=5)
    similarity = [image["similarity"] for image in told["images"]]
    assert similarity == sorted(similarity, reverse=True)
    for wrong in ({"text": " "}, {}, {"text": "a", "row": 1}, {"text": "a", "within": "index"}, {"row": 41}):
        answer = client.post("/api/search", json=wrong)
        assert answer.status_code == 400, wrong
        assert answer.json()["error"]


def test_the_chosen_rules_are_a_recipe_that_builds(post: Post, run: clipsieve.Run) -> None:
    chosen = [{"rule": "blur >= 7", "missing": 0}, "width >= 5"]
    told = post("recipe", keep=chosen)
    recipe = Recipe.build(yaml.safe_load(told["recipe"]))
    assert [(keep.rule, keep.missing) for keep in recipe.keep] == [("blur >= 7", 0), ("width >= 5", None)]
    assert recipe.read == run.recipe.read
    assert recipe.dedup == run.recipe.dedup
    assert recipe.write is not None
    assert recipe.write.path is None
    assert told["command"] is None
    assert told["recipe"].startswith(f"# relative paths are those of {Path.cwd()}\n")
    command = post("recipe", keep=["blur >= 7"])["command"]
    assert command == f"cd {Path.cwd()} && clipsieve apply {run.path} --keep 'blur >= 7'"
    assert post("recipe", keep=[])["command"] == f"cd {Path.cwd()} && clipsieve apply {run.path}"


def test_a_recipe_with_a_score_that_was_added_runs_and_keeps_what_the_page_said(
    labelled: clipsieve.Run, tmp_path: Path
) -> None:
    view = View(labelled)
    asked = questions.Rules.model_validate({"keep": ["label in ('red')", "label_probability >= 0.2"]})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe_text(view.tuning, asked))
    assert clipsieve.run(str(recipe), out=tmp_path / "run").counts.images.kept == view.counted(asked)["counts"]["kept"]


def test_a_recipe_that_cannot_run_in_one_go_says_so_and_how_it_can(labelled: clipsieve.Run) -> None:
    asked = questions.Rules.model_validate({"keep": ["nearest_similarity <= 0.9"]})
    first, why, instead, *_ = recipe_text(View(labelled).tuning, asked).splitlines()
    assert first.startswith("# relative paths")
    assert "nearest_similarity is a score of the whole data set" in why
    assert instead == f"# cd {Path.cwd()} && clipsieve apply {labelled.path} --keep 'nearest_similarity <= 0.9'"


@pytest.mark.parametrize(
    "path", ["/", "/api/run", "/static/view.js", "/image/4", "/image/99", "/nothing", "/api/captions"]
)
def test_every_answer_tells_the_browser_what_it_may_not_do(client: TestClient, path: str) -> None:
    answer = client.get(path)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert "server" not in answer.headers


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8765", "127.0.0.1.evil.example:8765", "", "[", "a@127.0.0.1:8765", "127.0.0.1:x"],
)
def test_a_foreign_name_that_resolves_to_this_machine_reads_nothing(client: TestClient, host: str) -> None:
    for path in ("/", "/api/run", "/image/4"):
        answer = client.get(path, headers={"Host": host})
        assert answer.status_code == 421
        assert "Content-Security-Policy" in answer.headers


def test_this_machines_names_are_known(served: Answers) -> None:
    for host in ("localhost:8765", "127.0.0.1:8765", "[::1]:8765", "localhost:9000"):  # the last through a tunnel
        assert client_of(served).get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Clipsieve": None},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_a_foreign_page_can_start_and_read_nothing(served: Answers, headers: dict[str, str | None]) -> None:
    client = client_of(served)
    for name, value in headers.items():
        client.headers.pop(name, None)
        if value is not None:
            client.headers[name] = value
    assert client.post("/api/apply", json={"keep": KEEP, "name": "stolen"}).status_code == 403
    assert client.get("/api/run").status_code == 403


def test_a_link_from_elsewhere_leads_to_the_page_and_to_no_image(served: Answers) -> None:
    client = client_of(served)
    client.headers["Sec-Fetch-Site"] = "cross-site"
    assert client.get("/").status_code == 200
    assert client.get("/image/4").status_code == 403


def test_another_host_asks_for_a_token_once_and_then_for_its_cookie(served: Answers) -> None:
    access = Access.at("0.0.0.0", 8765)
    assert access.token is not None
    assert len(access.token) >= 40
    there = client_of(served, access, base_url="http://gpu-box:8765")
    for path in (
        "/",
        "/api/run",
        "/image/4",
        "/static/view.js",
        "/?token=",
        "/?token=wrong",
        "/?token=%ff",
        "/image/4?token=" + access.token,
    ):
        assert there.get(path).status_code == 403
    welcome = there.get(f"/?token={access.token}")
    assert welcome.status_code == 200
    assert access.token not in welcome.text
    assert 'content="0; url=/"' in welcome.text
    cookie = welcome.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert there.get("/api/run").status_code == 200
    for query in (f"token={access.token}", "token=of-an-earlier-server"):
        assert 'content="0; url=/"' in there.get(f"/?{query}").text  # so that no token stays in the address
    assert "<main>" in there.get("/").text
    neighbours = client_of(served, access, base_url="http://gpu-box:8765")
    neighbours.headers["Cookie"] = f'_ga={{"x":1}}; bad"cookie[]=;{{}}; a/b=1; {access.cookie}={access.token}'
    assert neighbours.get("/api/run").status_code == 200
    for cookie in ("wrong", "", '"', "\\377", access.token[:-1]):
        stranger = client_of(served, access, base_url="http://gpu-box:8765")
        stranger.headers["Cookie"] = f"{access.cookie}={cookie}"
        assert stranger.get("/api/run").status_code == 403


def test_loopback_needs_no_token() -> None:
    assert [Access.at(host, 1).token for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3")] == [None] * 4
    assert all(Access.at(host, 1).token for host in ("0.0.0.0", "::", "192.168.1.5", "gpu-box"))


def test_questions_that_are_none_are_refused_in_one_line(client: TestClient) -> None:
    cases: list[tuple[Any, int]] = [
        (b"not json", 400), (b"[" * 100_000, 400), (b"[]", 400), (b'{"keep": "blur >= 1"}', 400),
        (b'{"path": "/etc/passwd"}', 400), (b'{"keep": [{"rule": 5}]}', 400), (b" " * 300_000, 413),
        (b'{"keep": ' + b"[" + b",".join([b'"blur >= 1"'] * 101) + b"]}", 400), (b"\xff", 400),
        (b'{"keep": [{"rule": "blur >= 1", "missing": 1e999}]}', 400), (b'{"keep": ["label in (\'\\ud800\')"]}', 400),
    ]  # fmt: skip
    for body, status in cases:
        answer = client.post("/api/decide", content=body)
        assert answer.status_code == status, body[:40]
        assert "\n" not in answer.json()["error"]
    for question in ({"sort": "no"}, {"order": "near"}, {"order": "near", "near": 9}, {"show": "x"}, {"limit": 10_000}):
        assert client.post("/api/gallery", json=question).status_code == 400


@pytest.mark.parametrize("name", ["../x", "a/b", "/tmp/x", ".hidden", "", "..", "a\\b", "x" * 101, "a b", "run\n", "ü"])
def test_apply_takes_a_name_and_never_a_path(client: TestClient, name: str) -> None:
    answer = client.post("/api/apply", json={"keep": KEEP, "name": name})
    assert answer.status_code == 400
    assert "name has letters" in answer.json()["error"]


def test_apply_runs_once_at_a_time_tells_how_it_goes_and_keeps_what_is_there(
    served: Answers, run: clipsieve.Run, made: Path
) -> None:
    go_on = Event()
    asked: list[Any] = []

    def work(of: clipsieve.Run, keep: Any, *, out: Path, fill: bool, progress: Any) -> clipsieve.Run:
        asked.append((keep, out, fill))
        progress.start(2, 0)
        progress.advance(21, True)
        go_on.wait(10)
        if "fails" in out.name:
            raise clipsieve.ClipsieveError("the disk is full; make room")
        return of

    client = client_of(Answers(served.view, served.thumbnails, served.searcher, Applying(run, work)))
    assert client.get("/api/apply").json() == {"job": None, "suggested": "run-apply"}
    assert client.post("/api/apply", json={"keep": KEEP, "name": "run"}).json()["error"].startswith("run already")
    assert client.post("/api/apply", json={"keep": KEEP, "name": "mine", "fill": True}).status_code == 200
    assert "wait until" in client.post("/api/apply", json={"keep": KEEP, "name": "other"}).json()["error"]
    assert client.get("/api/apply").json()["job"]["state"] == "running"
    go_on.set()
    assert (job := finished(client))["state"] == "done"
    assert job["result"]["kept"] == run.counts.images.kept
    assert asked == [([{"rule": rule} for rule in KEEP], (made / "mine").resolve(), True)]
    client.post("/api/apply", json={"keep": KEEP, "name": "fails"})
    assert (job := finished(client))["state"] == "failed"
    assert job["lines"] == ["the disk is full; make room"]


def test_what_the_command_line_says_of_lacking_scores_is_said_in_the_words_of_the_page(
    served: Answers, run: clipsieve.Run
) -> None:
    client = client_of(Answers(served.view, served.thumbnails, served.searcher, Applying(run, clipsieve.apply_run)))
    client.post("/api/apply", json={"keep": ["clip_score >= -1"], "name": "lacking"})
    job = finished(client)
    assert job["fillable"]
    assert "clip_score of" in job["lines"][-1]
    assert "the box above, when ticked, computes" in job["lines"][-1]
    assert "--fill" not in job["lines"][-1]


def test_an_apply_that_is_cut_short_says_how_to_go_on_and_so_does_its_folder(pairs: clipsieve.Run) -> None:
    cut = Event()

    def cut_short(of: clipsieve.Run, keep: Any, *, out: Path, fill: bool, progress: Any) -> clipsieve.Run:
        clipsieve.apply_run(of, keep, out=out, fill=fill)
        (out / "summary.json").unlink()
        for part in (out / "ledger").iterdir():
            part.unlink()
        cut.set()
        while True:
            progress.advance(0, False)
            time.sleep(0.01)

    applying = Applying(pairs, cut_short)
    asked = questions.Apply.model_validate({"keep": ["blur >= 50"], "name": "cut", "fill": True})
    out = pairs.path.resolve().parent / "cut"
    applying.begin(asked)
    assert cut.wait(20)
    command = f"clipsieve apply {pairs.path} --keep 'blur >= 50' --fill --out {out}"
    assert applying.stop() == f"cut is not finished; to go on: cd {Path.cwd()} && {command}"
    with pytest.raises(UsageError, match="cut already exists, not finished; to go on with it: cd ") as told:
        Applying(pairs, cut_short).begin(asked)
    assert command in str(told.value)
    assert clipsieve.apply_run(pairs.path, ["blur >= 50"], out=out, fill=True).counts.images.kept > 0


def test_who_leaves_while_asking_leaves_no_traceback_and_no_image_to_be_decoded(served: Answers) -> None:
    begun: list[int] = []

    class Slow:
        def ask(self, row: int, side: int) -> Future[Any]:
            begun.append(row)
            return waiting

    async def leave(path: str, method: str) -> int:
        sent: list[Any] = []
        headers = [(b"host", b"127.0.0.1:8765"), (b"x-clipsieve", b"view")]
        scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": headers}

        async def receive() -> dict[str, str]:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        await app(scope, receive, send)
        return int(sent[0]["status"])

    waiting: Future[Any] = Future()
    app = Answers(served.view, cast(Any, Slow()), served.searcher, served.applying).app(Access.at("127.0.0.1", 8765))
    assert run_async(leave("/api/decide", "POST")) == 499
    assert run_async(leave("/image/4", "GET")) == 499
    assert begun == [4]
    assert waiting.cancelled()


def test_search_in_an_index_finds_the_runs_images_and_shows_those_of_others(run: clipsieve.Run, tmp_path: Path) -> None:
    pytest.importorskip("lancedb")
    from clipsieve.web.server import answers_of

    (tmp_path / "foreign.png").write_bytes(image_bytes("blue", (300, 200), seed=99))
    other = clipsieve.score(str(tmp_path), model="demo", vectors=True, out=tmp_path / "other")
    for one in (run, other):
        clipsieve.index_run(one, tmp_path / "both.index")
    with clipsieve.Index.open(tmp_path / "both.index") as index:
        client = client_of(answers_of(run, index))
        assert client.get("/api/run").json()["search"] == ["index", "run"]
        for question in ({"text": "something blue"}, {"row": 8}):
            answer = client.post("/api/search", json={**question, "within": "index", "limit": 120})
            images = answer.json()["images"]
            (foreign,) = [image for image in images if image["row"] is None]
            assert foreign["name"].endswith("foreign.png")
            assert foreign["thumbnail"]
            own = [image for image in images if image["row"] is not None]
            assert len({image["row"] for image in own}) == len(own) == run.counts.images.kept


def finished(client: TestClient) -> dict[str, Any]:
    for _ in range(200):
        job: dict[str, Any] = client.get("/api/apply").json()["job"]
        if job["state"] != "running":
            return job
        time.sleep(0.02)
    raise AssertionError("apply does not end")


def test_a_run_whose_source_has_changed_still_shows_its_numbers(made: Path, tmp_path: Path) -> None:
    from clipsieve.web.server import answers_of

    rows = tmp_path / "rows.jsonl"
    rows.write_text((made / "rows.jsonl").read_text())
    clipsieve.run(read={"path": str(rows), "root": str(made)}, keep=["width >= 60"], out=tmp_path / "run")
    rows.write_text(rows.read_text().splitlines()[0] + "\n")
    client = client_of(answers_of(clipsieve.Run.open(tmp_path / "run")))
    assert "source has changed" in client.get("/api/run").json()["withoutImages"]
    assert client.post("/api/decide", json={"keep": ["width >= 70"]}).json()["counts"]["kept"] > 0
    assert client.get("/image/1").status_code == 404
    assert "source has changed" in client.get("/api/captions?rows=1").json()["captions"][0]["error"]
    assert client.get("/api/run").json()["search"] == []
