"""gunicorn's settings for the benchmarks."""

worker_class = "aiohttp.GunicornUVLoopWebWorker"
backlog = 4096
keepalive = 120
loglevel = "warning"


def when_ready(server):
    print("ready", flush=True)
