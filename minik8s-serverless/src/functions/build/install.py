"""Installs what a function's requirements.txt asks for, and sends it to the cluster's registry as one archive.

Runs in a pod of its own while the function's image is made; what it prints is the log of that. Ends with 0 when all has
been sent, with 75 where trying again may help, and with something else where it will not.
"""

import glob
import http.client
import os
import site
import ssl
import subprocess
import sys
import tarfile

PACKAGES = "/work/packages"
ARCHIVE = "/work/packages.tar"
CA = "/ca/ca.crt"
AGAIN = 75
# What pip says where it does not reach an index.
UNREACHED = b"after connection broken by"


def fail(why, status=1):
    print(why, flush=True)
    sys.exit(status)


def environment():
    """The environment in which `python -m pip` works."""
    found = dict(os.environ, HOME="/work", TMPDIR="/work")
    try:
        import pip  # noqa: F401
    except ImportError:
        # Debian has it as a wheel, which runs as it is.
        wheels = sorted(glob.glob("/usr/share/python-wheels/pip-*.whl"))
        if not wheels:
            fail("the base image has no pip, so that nothing can be installed: take one that has, or put the packages "
                 "beside the function's own files")
        found["PYTHONPATH"] = wheels[-1]
    return found


def install():
    command = [sys.executable, "-m", "pip", "install", "--no-input", "--no-cache-dir", "--no-compile",
               "--disable-pip-version-check", "--no-warn-script-location", "--progress-bar", "off",
               "--target", PACKAGES, "-r", "requirements.txt"]
    unreached = False
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as pip:
        for line in pip.stdout:
            unreached |= UNREACHED in line
            sys.stdout.buffer.write(line)
            sys.stdout.flush()
    if pip.returncode != 0:
        sys.exit(AGAIN if unreached else 1)


def pack():
    """One archive, with every file where this Python looks for packages."""
    os.makedirs(PACKAGES, exist_ok=True)
    # Compiled once, here, and not in each instance; valid by content, for times are not kept.
    subprocess.run([sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", PACKAGES],
                   check=False)
    with tarfile.open(ARCHIVE, "w") as archive:
        archive.add(PACKAGES, arcname=site.getsitepackages()[0].lstrip("/"))


def send():
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host:
        fail("the registry cannot be reached from pods: the cluster's API listens nowhere that pods can reach", AGAIN)
    if os.path.exists(CA):
        context = ssl.create_default_context(cafile=CA)
        connection = http.client.HTTPSConnection(host, int(port), context=context, timeout=300, blocksize=1 << 16)
    else:
        connection = http.client.HTTPConnection(host, int(port), timeout=300, blocksize=1 << 16)
    with open(ARCHIVE, "rb") as archive:
        size = str(os.path.getsize(ARCHIVE))
        connection.request("PUT", os.environ["SEND_TO"], body=archive, headers={"content-length": size})
    answer = connection.getresponse()
    told = answer.read().decode(errors="replace")
    if answer.status == 413:
        fail(f"the installed packages are too large: {told}")
    if answer.status != 201:
        fail(f"the registry does not take the installed packages: {answer.status} {told}", AGAIN)


if __name__ == "__main__":
    install()
    pack()
    try:
        send()
    except OSError as error:
        fail(f"the registry cannot be reached: {error}", AGAIN)
