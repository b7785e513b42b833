"""A small Flask site: login, forms, an upload, streams, downloads, error pages."""

import hashlib
import io
import os
import tempfile
import time

from flask import (Flask, Response, abort, flash, g, get_flashed_messages, jsonify, redirect, render_template_string, request,
                   send_file, session, stream_with_context, url_for)

app = Flask(__name__)
app.secret_key = "only for tests"
app.config["MAX_CONTENT_LENGTH"] = 8 * 1024 * 1024
PAGE = "<!doctype html><title>{{ title }}</title><h1>{{ title }}</h1>{% for m in get_flashed_messages() %}<p>{{ m }}</p>{% endfor %}"


@app.before_request
def begin():
    g.user = session.get("user")


@app.teardown_request
def finish(error):
    g.pop("user", None)


@app.get("/")
def index():
    return render_template_string(PAGE, title=f"Hello {g.user or 'stranger'}")


@app.route("/login", methods=["GET", "POST"])
def login():
    if request.method == "POST":
        if request.form["password"] != "correct horse":
            return render_template_string(PAGE, title="Wrong password"), 403
        session["user"] = request.form["name"]
        flash("Welcome back")
        return redirect(url_for("index"))
    return render_template_string(PAGE, title="Log in")


@app.post("/logout")
def logout():
    session.clear()
    return redirect(url_for("index"))


@app.get("/me")
def me():
    return jsonify(user=g.user) if g.user else abort(401)


@app.post("/form")
def form():
    return jsonify({name: request.form.getlist(name) for name in request.form})


@app.post("/json")
def json():
    return jsonify(got=request.get_json(), args=request.args.to_dict(flat=False))


@app.post("/upload")
def upload():
    file = request.files["file"]
    content = file.read()
    return jsonify(name=file.filename, type=file.mimetype, size=len(content), sha256=hashlib.sha256(content).hexdigest(),
                   note=request.form.get("note"))


@app.get("/stream/<name>")
def stream(name):
    def lines():
        for number in range(5):
            time.sleep(0.05)
            yield f"{request.path} {number} for {name}\n"

    return Response(stream_with_context(lines()), mimetype="text/plain")


@app.get("/download")
def download():
    file = tempfile.TemporaryFile()
    file.write(b"0123456789" * 50_000)
    file.seek(0)
    return send_file(file, mimetype="application/octet-stream", as_attachment=True, download_name="größe.bin")


@app.get("/memory")
def memory():
    return send_file(io.BytesIO(b"from memory"), mimetype="text/plain", download_name="memory.txt", conditional=True, etag="memory")


@app.get("/this-file")
def this_file():
    return send_file(os.path.abspath(__file__), mimetype="text/x-python", conditional=True)


@app.get("/broken")
def broken():
    raise RuntimeError("broken on purpose")


@app.errorhandler(404)
def missing(error):
    return render_template_string(PAGE, title="Nothing here"), 404


@app.get("/where")
def where():
    return jsonify(url=request.url, root=request.script_root, path=request.path, remote=request.remote_addr, method=request.method,
                   scheme=request.scheme, host=request.host, outside=url_for("me", _external=True))
