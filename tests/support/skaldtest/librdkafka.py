"""A newer librdkafka: the one inside the Python client, under the name that programs look for."""

import glob
import os


def newer_in(directory):
    """A folder for LD_LIBRARY_PATH, made in this directory."""
    import confluent_kafka

    libs = os.path.join(os.path.dirname(os.path.dirname(confluent_kafka.__file__)),
                        "confluent_kafka.libs")
    found = glob.glob(os.path.join(libs, "librdkafka-*.so*"))
    assert len(found) == 1, "the Python client brings no librdkafka along: %s" % found
    version = [int(x) for x in confluent_kafka.libversion()[0].split(".")[:2]]
    assert version >= [2, 5], "it is as old as the installed one: %s" % version
    folder = os.path.join(directory, "librdkafka")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "librdkafka.so.1")
    if not os.path.exists(path):
        os.symlink(found[0], path)
    return folder


def uses(pid, folder):
    """Whether a process has that one loaded."""
    real = os.path.realpath(os.path.join(folder, "librdkafka.so.1"))
    with open("/proc/%d/maps" % pid, encoding="ascii") as f:
        loaded = {line.split()[-1] for line in f if "librdkafka" in line}
    return loaded == {real}
