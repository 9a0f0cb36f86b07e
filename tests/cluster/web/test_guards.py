"""Who is let in, and how much may be sent."""

import base64

import pytest

from tests.cluster.web.pictures import DRAWN, IMAGE, show

TOKEN = "0123456789abcdef-!"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (None, 401),
        ("Bearer", 401),
        (f"Bearer {TOKEN}x", 401),
        (f"Bearer {TOKEN.upper()}", 401),
        (TOKEN, 401),
        ("Basic !", 401),
        (f"Basic {base64.b64encode(f'{TOKEN}:'.encode()).decode()}", 401),
        ("Bearer ü".encode(), 401),
        (f"Bearer {TOKEN}", 200),
        (f"bearer {TOKEN}", 200),
        (f"Basic {base64.b64encode(f'anybody:{TOKEN}'.encode()).decode()}", 200),
    ],
)
def test_the_token_is_asked_for(serve, sent, status):
    client = serve(token=TOKEN)
    answer = client.get("/models", headers={} if sent is None else {"Authorization": sent})
    assert answer.status_code == status
    if status == 401:
        assert answer.json() == {"detail": "expected the token of this server; send it as Authorization: Bearer TOKEN"}
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_the_token_may_stand_in_the_environment(serve, monkeypatch):
    monkeypatch.setenv("FSS_TOKEN", TOKEN)
    client = serve()
    assert client.get("/models").status_code == 401
    assert client.get("/models", headers={"Authorization": f"Bearer {TOKEN}"}).status_code == 200


def test_every_route_is_behind_the_token_but_pages_and_health(serve):
    client = serve(token=TOKEN)
    for path, ways in client.get("/openapi.json").json()["paths"].items():
        for way in ways:
            assert client.request(way, path).status_code == (200 if path == "/health" else 401), path
    for path in ("/", "/docs", "/page/index.html"):
        assert client.get(path).status_code == 200
    assert client.get("/page/../health").json()["status"] == "UP"  # the path as it is resolved
    assert client.get("/page/%2e%2e%2fapp.py").status_code == 404


def test_without_a_token_no_other_name_of_this_machine_is_answered(serve):
    """A page elsewhere could give its own name this machine's address, and read what the server says."""
    for host, status in (
        ("localhost:8000", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("evil.example", 403),
        ("", 403),
    ):
        assert serve().get("/models", headers={"Host": host}).status_code == status
    headers = {"Host": "evil.example", "Authorization": f"Bearer {TOKEN}"}
    assert serve(token=TOKEN).get("/models", headers=headers).status_code == 200


def test_no_page_of_another_server_may_ask(serve):
    client = serve()
    for origin, status in (("http://localhost", 200), ("http://evil.example", 403), ("null", 403)):
        answer = client.post("/supports", files={"image": IMAGE, "mask": DRAWN}, headers={"Origin": origin})
        assert answer.status_code == status
    assert answer.json()["detail"] == "expected a page of this server, got one of null"


def test_too_much_is_refused_also_without_its_size_beforehand(serve):
    client = serve(max_upload_mib=0.01)
    show(client)
    big = IMAGE + b"0" * 2**15
    sentence = "expected a request of at most 0.01 MiB; send fewer or smaller images"
    answer = client.post("/supports", files={"image": big, "mask": DRAWN})
    assert (answer.status_code, answer.json()["detail"]) == (413, sentence)
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = client.post("/supports", content=(b"--b\r\n" + b"0" * 2**10 for _ in range(20)), headers=kind)
    assert (answer.status_code, answer.json()["detail"]) == (413, sentence)
    assert client.post("/cvat", content=b"0" * 2**15, headers={"Content-Type": "application/json"}).status_code == 413
