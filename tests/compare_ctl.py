#!/usr/bin/env python3
"""Runs the same command lines on two sides and prints where they differ.

A side is a ctl program and a server: the program is what is judged (etcdctl against `kontiki ctl`), or the
server is (etcd against kontiki, both asked by the real etcdctl), or both. Each suite starts from a fresh
server. Ids, times, sizes, log positions and time stamps are made alike before output is compared; all else
must be the same bytes: exit code, standard output, standard error.

    compare_ctl.py --ctl-a etcdctl --ctl-b 'kontiki ctl' --server-a etcd
    compare_ctl.py --ctl-a etcdctl --server-a etcd --server-b kontiki --members 3

--server-X starts servers of that program, with data in a temporary directory; --endpoint-X names servers that
run already (and should be fresh). What is not given for B is as for A. Exit code 1 if anything differs.
"""

import argparse
import base64
import difflib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time

FORMATS = ["simple", "json", "fields", "table", "protobuf"]
WATCH_SETTLE = 0.5  # a watch gives no sign that it has begun


class Step:
    """One command line, and what goes with it."""

    def __init__(self, line, stdin=None, env=None, save=None, events=None, exit_only=False, pause=0.0, until=None, unordered=False):
        self.any_member = False  # who leads and who answers does not count
        self.late = None  # why a server of a later 3.5 than 3.5.1 differs here
        self.line = line  # {name} stands for what an earlier step saved
        self.stdin = stdin
        self.env = env or {}
        self.save = save  # (name, pattern with one group) taken from standard output
        self.events = events  # run while this one runs, which is then interrupted
        self.exit_only = exit_only  # etcdctl crashes here: only the exit code counts
        self.pause = pause  # seconds to wait before
        self.unordered = unordered  # lines, and members in JSON, may come in any order
        self.until = until  # bytes to await on standard output before the interrupt


def each(line, formats=FORMATS, **more):
    return [Step(f"{line} -w {form}", **more) for form in formats]


def kv_suite():
    s = []
    s += each("get nosuch") + [Step("put foo bar")] + each("put foo bar2") + [Step("get foo")]
    s += each("put foo bar6 --prev-kv") + [Step("put newkey v --prev-kv"), Step("put newkey2 v --prev-kv -w json")]
    s += [Step("put foo", stdin="from-stdin\n"), Step("get foo -w json"), Step("put foo", stdin=""), Step("put", stdin="")]
    s += [Step(l) for l in """put a b c|put '' v|put -- -k -v|put -k v|get -- -k|put foo --ignore-value|put foo x --ignore-value
put nosuch --ignore-value|put foo x --ignore-lease|put nosuch x --ignore-lease|put foo x --lease=1234|put foo x --lease=zz
put foo x --lease=0|put /a/k1 v1|put /a/k2 v2|put /a/k3 v3|put /a/k4 v4|put /a/k5 v5|put emptyval ''|get emptyval""".replace("\n", "|").split("|")]
    s += [Step("get emptyval -w json"), Step("get emptyval -w fields"), Step("put binkey", stdin=b"v\x00\xff\xc3\xa9\xe2\x80\x8b\t\"")]
    s += each("get binkey") + [Step("get binkey --hex"), Step("get binkey --hex -w json"), Step("get binkey --hex -w fields")]
    s += each("get /a/ --prefix") + each("get /a/k2 /a/k4") + [Step("get /a/k4 --from-key")]
    s += each("get /a/ --prefix --limit=2") + each("get /a/ --prefix --keys-only") + each("get /a/ --prefix --count-only")
    s += [Step(l) for l in """get /a/ --prefix --print-value-only|get foo --print-value-only|get /a/ --prefix --count-only --limit 2 -w json
get /a/ --prefix --order=DESCEND --sort-by=KEY|get /a/ --prefix --order=ASCEND --sort-by=MODIFY|get /a/ --prefix --sort-by=CREATE --order=DESCEND
get /a/ --prefix --sort-by=VERSION --order=ASCEND|get /a/ --prefix --sort-by=VALUE --order=DESCEND --limit=2|get /a/ --prefix --order=bogus
get /a/ --prefix --sort-by=bogus|get /a/ --prefix --sort-by=KEY|get /a/ --prefix --order=descend --sort-by=key|get foo --rev=2
get foo --rev=3 -w json|get foo --rev=9999|get foo --rev=0|get foo --rev=-1|get foo --consistency=s|get foo --consistency=l
get foo --consistency=x|get|get a b c|get a b --prefix|get a --prefix --from-key|get foo --keys-only --count-only
get foo --print-value-only -w json|get foo --print-value-only --keys-only|get foo --count-only|get foo --hex|get /a/k1 --hex
get '' --prefix --keys-only|get '' --from-key --count-only -w fields|get ''|put /d/1 1|put /d/2 2|put /d/3 3|put /d/4 4|put /d/5 5
put /d/6 6|put /d/7 7|del nosuch|del /d/1|del /d/2 -w json|del /d/3 -w fields|del /d/4 -w protobuf|del /d/5 --prev-kv
del /d/6 --prev-kv -w json|del /d/7 --prev-kv -w fields|del nosuch -w json|del nosuch -w table|del|del a b c|del a b --prefix
del a --prefix --from-key|del ''|put /e/1 1|put /e/2 2|put /e/3 3|put /e/4 4|del /e/1 /e/3|del /e/ --prefix|put zz1 1|put zz2 2
del zz1 --from-key|del '' --prefix --prev-kv -w json|get '' --prefix|put foo a|put foo b|put foo c|put foo d|get foo -w json
compaction 5 -w simple|compaction 6 -w json|compaction 7 -w fields|compaction 8 -w table|compaction 9 -w protobuf|compaction 3
compaction 99999|compaction|compaction abc|compaction 1 2|get foo --rev=3|compaction 30 --physical|compaction 0|compaction -- -1
compact 31|get foo --rev=0x30|get foo --rev=99999999999999999999|get foo --limit=1x""".replace("\n", "|").split("|")]
    s += [Step("put big", stdin="a" * 1600000), Step("put big", stdin="a" * 3000000), Step("get big --keys-only")]
    return s


def txn_suite():
    basic = 'mod("key1") > "0"\n\nput key1 "overwrote-key1"\n\nput key1 "created-key1"\nput key2 "some extra key"\n\n'
    more = "\nget z1\nput y1 v1 --prev-kv\nput y2 v2\ndel w --prefix --prev-kv\nget y --prefix --keys-only\n\n\n"
    s = [Step("put key1 10"), Step("put key2 20")] + each("txn", stdin=basic) + [Step("txn -i", stdin=basic)]
    s += [Step("txn -i", stdin='value("nosuch") = "x"\n\n\nget key1\nget key2\n\n')]
    for ops in ["get key1\nput k3 v3\ndel k3", "put k3 v3\nput k3 v4", "put k3 v3\nget k3\nput k4 v4\ndel key --prefix --prev-kv"]:
        s += [Step("txn", stdin=f"\n{ops}\n\n\n")]
    s += each("txn", stdin=more) + each("txn", ["simple", "json", "fields"], stdin='mod("y1") = "0"\n\n\n\n')
    compares = """ver("y1") = "1"|version("y1") = "4"|create("y1") < "100"|c("y1") > "1"|m("y1") != "0"|mod("y1") > "3"|val("y1") = "v1"
value("y1") != "x"|value("y1") < "zz"|foo("y1") = "1"|mod("y1") = "abc"|mod(y1) = "1"|mod("y1" = "1"|mod("y1")="1"|mod("y1") = 1|garbage
val("nosuch") = ""|mod("nosuch") = "0"|ver("nosuch") = "0"|val("y1") = "v1" trailing|mod("y1")  =  "1"|val("y\\x311") = "v"|mod("y1") = "-1" """
    for line in compares.strip().replace("\n", "|").split("|"):
        s += [Step("txn", stdin=f"{line}\n\nget y1\n\nget y2\n\n")]
    for line in ['lease("y1") = "0"', 'mod("y1") ! "3"', 'mod("y1") => "3"']:
        s += [Step("txn", stdin=f"{line}\n\nget y1\n\nget y2\n\n", exit_only=True)]
    for op in ["foo bar", "put", "put onlykey", "put a b --lease=1", "get a --rev=99999", "put a --ignore-value", 'put "a b" v\nput q "x\\ny"\nget "a b"\nget q']:
        s += [Step("txn", stdin=f"\n{op}\n\n\n")]
    s += [Step("txn", stdin="\nget a --nosuch\n\n\n", exit_only=True)]
    s += [Step("txn", stdin="\nput a b"), Step("txn", stdin="\n"), Step("txn extra", stdin="\n\n\n"), Step("txn", stdin="\n\n\n")]
    s += [Step("txn -w json", stdin="\n\n\n")]
    for count in (129, 128):
        puts = "".join(f"put m{i} v\n" for i in range(count))
        s += [Step("txn", stdin=f"\n{puts}\n\n")]
    return s + [Step("get m0 -w json")]


def watch_suite():
    events = ["put w1 a", "put w1 b", "put w2 c", "del w1"]
    s = []
    for line in ["w --prefix", "w1 --prev-kv"]:
        s += [Step(f"watch {line} -w {form}", events=events) for form in FORMATS]
    s += [Step(f"watch {line}", events=events) for line in ["w1 w2", "w1 --hex", "'' --prefix", "w1 w2 w3"]]
    s += [Step("put h 1"), Step("put h 2"), Step("put h 3"), Step("del h"), Step("get h -w json", save=("rev", r'"revision":(\d+)'))]
    s += [Step("watch h --rev=5", events=[]), Step("watch h --rev=5 -w json", events=[]), Step("watch h --rev=5 --prev-kv -w fields", events=[])]
    touch = ["put h x", "del h"]
    s += [Step("watch h -- sh -c 'env | grep ETCD_WATCH | sort'", events=touch)]
    s += [Step("watch h -- sh -c 'exit 3'", events=touch), Step("watch h -- nosuchbinary", events=touch)]
    s += [Step("watch -- echo hi", env={"ETCDCTL_WATCH_KEY": "h"}, events=touch), Step("watch", env={"ETCDCTL_WATCH_KEY": "h"}, events=touch)]
    s += [Step("watch", env={"ETCDCTL_WATCH_KEY": "h1", "ETCDCTL_WATCH_RANGE_END": "h2"}, events=["put h1 x"])]
    s += [Step("watch foo", env={"ETCDCTL_WATCH_KEY": "h"}), Step("watch foo -- echo 1", env={"ETCDCTL_WATCH_KEY": "h"})]
    s += [Step("watch", env={"ETCDCTL_WATCH_RANGE_END": "h"}), Step("watch"), Step("watch foo --"), Step("watch a b --prefix")]
    s += [Step("compaction {rev}")] + [Step(f"watch h --rev=2 -w {form}") for form in ["simple", "json", "fields"]]
    s += [Step("watch h --rev=-5")]
    bad = "watch foo\nprogress\nwatch\nbogus\n\nwatch foo bar --prefix\nwatch -- echo\n"
    s += [Step("watch -i", stdin=bad, events=[], until=b"progress notify"), Step("watch -i", stdin="watch foo\n"), Step("watch -i", stdin="watch --nosuch foo\n")]
    s += [Step("watch -i", stdin="watch foo --prev-kv\nwatch bar --prefix\n", events=["put foo 1", "put barx 2", "del foo"])]
    s += [Step("watch -i -w json", stdin="watch foo\n", events=["put foo 1", "del foo"])]
    s += [Step("watch -i", stdin="watch foo -- echo event received\n", events=["put foo 1", "del foo"])]
    return s


def lease_suite():
    save = r"lease ([0-9a-f]+) granted"
    s = each("lease grant 1000")
    s += [Step(f"lease grant {args}") for args in ["", "abc", "10 20", "0", "-- -5", "9000000001", "9000000000", "1"]]
    s += each("lease list") + [Step("lease grant 100", save=("l1", save)), Step("put lk1 a --lease={l1}")]
    s += each("get lk1", ["json", "fields"]) + [Step("get lk1 -w fields --hex")]
    s += each("lease timetolive {l1}") + each("lease timetolive {l1} --keys") + each("lease timetolive 1234", ["simple", "json"])
    # From here on there are several keys, which come in any order.
    s += [Step("put lk2 b --lease={l1}"), Step("lease timetolive {l1} --keys")]
    s += [Step("lease timetolive 1234 --keys -w fields"), Step("lease timetolive zz"), Step("lease timetolive")]
    s += each("lease keep-alive --once {l1}", ["simple", "json", "fields", "protobuf"])
    s += [Step("lease keep-alive {l1}", events=[], until=b"keepalived"), Step("lease keep-alive --once 1234"), Step("lease keep-alive 1234")]
    s += [Step("lease keep-alive"), Step("lease keep-alive zz"), Step("put lk3 c --lease={l1} -w json"), Step("put lk1 moved --lease=0")]
    s += [Step("put lk2 zz --ignore-lease"), Step("lease timetolive {l1} --keys"), Step("lease revoke {l1}"), Step("get lk --prefix"), Step("lease revoke {l1}")]
    for form in ["json", "fields", "protobuf", "table"]:
        s += [Step("lease grant 100", save=("lf", save)), Step(f"lease revoke {{lf}} -w {form}")]
    s += [Step(l) for l in ["lease revoke", "lease revoke zz", "lease revoke 1234", "lease", "lease nosuch", "lease gr 10"]]
    s += [Step("lease list x", pause=3)]  # by when the shortest have expired on both sides
    s += [Step("lease grant 3", save=("l3", save)), Step("lease keep-alive {l3}", events=["lease revoke {l3}"], until=b"expired or revoked")]
    return s


def member_suite():
    s = each("member list") + [Step("member list --hex"), Step("member list --hex -w json"), Step("member list -w table --hex"), Step("member list extra")]
    s += [Step(l) for l in ["member", "member nosuch", "member add", "member add m4", "member add m4 --peer-urls=", "member add m4 --peer-urls=bad"]]
    s += [Step(f"member add {a}") for a in ["m4 --peer-urls=127.0.0.1:42380", "a b --peer-urls=http://127.0.0.1:42380", "m4 --peer-urls=http://h", "m4 --peer-urls=http://h:1/p"]]
    for word in ["promote", "remove"]:
        s += [Step(f"member {word} {a}") for a in ["1234", "zz", ""]]
    s += [Step(f"member update {a}") for a in ["1234", "1234 --peer-urls=http://127.0.0.1:42380", "zz --peer-urls=http://x:1", ""]]
    for at, form in enumerate(["simple", "json", "protobuf"]):
        # Ids are hashes of the second, too: a pause keeps them apart.
        url = f"http://127.0.0.1:4238{at}"
        s += [Step(f"member add x{at} --peer-urls={url} --learner -w {form}", pause=1.1)]
        s += [Step("member list", save=("m", r"(?m)^([0-9a-f]+), unstarted"))]
        s += [Step(f"member promote {{m}} -w {form}"), Step(f"member update {{m}} --peer-urls=http://127.0.0.1:5238{at} -w {form}")]
        s += [Step("member list -w fields")]
        for step in s[-2:]:
            step.late = "3.5.30 and older make a voter of a learner whose URLs change, in their list"
        s += [Step(f"member remove {{m}} -w {form}"), Step("member remove {m}")]
    for form in ["fields", "table"]:
        s += [Step(f"member add t --peer-urls=http://127.0.0.1:42390 --learner -w {form}", pause=1.1)]
        s += [Step("member list", save=("m", r"(?m)^([0-9a-f]+), unstarted")), Step(f"member remove {{m}} -w {form}")]
    s += [Step("member add y --peer-urls=http://127.0.0.1:42389,http://127.0.0.1:42388 --learner --hex", pause=1.1), Step("member list -w table")]
    for step in s:
        step.unordered = True  # by id, which is drawn
    return s


def endpoint_suite():
    s = [Step("put k v")]
    for word in ["status", "health", "hashkv"]:
        s += each(f"endpoint {word}") + [Step(f"endpoint {word} --cluster"), Step(f"endpoint {word} --cluster -w json")]
        s += [Step(f"--endpoints={{ep}},127.0.0.1:1 --command-timeout=1s endpoint {word}")]
        s += [Step(f"--endpoints=127.0.0.1:1 --command-timeout=1s endpoint {word} -w json")]
        s += [Step(f"--endpoints=http://{{ep}} endpoint {word}")]
    s += [Step("endpoint hashkv --rev=2"), Step("endpoint hashkv --rev=99999"), Step("endpoint"), Step("endpoint nosuch"), Step("endpoint h")]
    return s + [Step("endpoint status --hex -w json"), Step("--endpoints=127.0.0.1:1 --command-timeout=1s endpoint health --cluster")]


def maintenance_suite():
    s = each("alarm list") + each("alarm disarm", ["simple", "json", "table", "protobuf"])
    s += [Step("alarm list extra"), Step("alarm disarm extra"), Step("alarm"), Step("alarm nosuch")] + each("defrag")
    s += [Step("defrag --cluster"), Step("--endpoints={ep},127.0.0.1:1 --command-timeout=1s defrag")]
    s += [Step(f"move-leader {a}") for a in ["", "1234", "zz"]]
    s += [Step("member list", save=("id", r"^([0-9a-f]+)")), Step("move-leader {id}")] + each("move-leader {id}", ["json", "fields", "table", "protobuf"])
    return s


def global_suite():
    down = "--endpoints=127.0.0.1:1 --command-timeout=1s"
    s = [Step(f"{down} {l}", stdin="\n\n\n") for l in ["get foo", "put foo bar", "member list", "lease grant 10", "lease revoke 10", "move-leader 1", "alarm list"]]
    s += [Step(l) for l in """version|version -w json|vers|versoin|nosuchcmd|--version|--nosuchflag get foo|get --nosuchflag foo|-w bogus get foo|-w yaml put a b
--command-timeout=abc get foo|--command-timeout=1 get foo|--command-timeout=1x get foo|--endpoints= get foo|put foo bar|e|help nosuch|help put|help lease|put --help|-h
--endpoints=127.0.0.1:1,{ep} get foo|--endpoints=http://{ep} get foo|get foo --endpoints {ep}|get foo -wjson|get foo -w|get foo --hex=x|--endpoints
--endpoints=127.0.0.1:1 --cacert=/nosuch get foo|--cert=/nosuch --key=/nosuch get foo|--cert=/nosuch get foo|--insecure-skip-tls-verify get foo
--keepalive-time=1s --keepalive-timeout=1s get foo|get a -h|lease grant --help|--user=root:x get foo""".replace("\n", "|").split("|")]
    s += [Step("", stdin="")]
    s += [Step("get foo", env={"ETCDCTL_API": "3"}), Step("get foo", env={"ETCDCTL_API": "9"}), Step("get foo", env={"ETCDCTL_WRITE_OUT": "json"})]
    s += [Step("get foo", env={"ETCDCTL_NOSUCH": "x"}), Step("get foo", env={"ETCDCTL_HEX": "true"}), Step("get foo", env={"ETCDCTL_DIAL_TIMEOUT": "abc"})]
    s += [Step("get foo -w json", env={"ETCDCTL_WRITE_OUT": "fields"}), Step("get foo", env={"ETCDCTL_WATCH_KEY": "h"})]
    return s


def auth_suite():
    permissions = "read foo|readwrite a b|write /p/ --prefix|read k --from-key|readwrite '' --prefix|read ''|bogus foo|read|read a b --prefix"
    permissions += "|read a b --from-key|read a --prefix --from-key|read '' --prefix --from-key|READ foo|rw foo|write foo|readwrite zz -w json"
    s = each("auth status") + [Step(f"auth {line}") for line in ["enable", "enable extra", "disable extra", "status extra", "disable"]]
    for form in FORMATS:
        s += [Step(f"role add r-{form} -w {form}")]
    s += [Step(l) for l in "role add r0|role add r0|role add|role add ''|role get|role get nosuch|role list extra|role delete".split("|")] + each("role list")
    s += [Step(f"role grant-permission r0 {p}") for p in permissions.split("|")] + [Step("role grant-permission nosuch read foo")]
    s += each("role get r0") + [Step(f"role revoke-permission {p}") for p in "r0 foo|r0 a b|r0 /p/ --prefix|r0 k --from-key|r0 nosuch|nosuch foo|r0".split("|")]
    s += [Step("role revoke-permission r0 '' --prefix -w json"), Step("role revoke-permission r0 '' -w fields"), Step("role get r0"), Step("role get root")]
    s += [Step(f"role delete {l}") for l in ["r-json", "r-simple -w json", "r-protobuf -w fields", "nosuch"]]
    s += [Step("user add u1:pw1"), Step("user add u2 --new-user-password=pw2"), Step("user add u3 --no-password"), Step("user add u4 --interactive=false", stdin="pw4\n")]
    s += [Step("user add u6", stdin="pw\nother\n"), Step("user add u6", stdin="\n"), Step("user add u6 --interactive=false", stdin="  two words\n")]
    s += [Step(f"user {l}") for l in "add u1:pw1|add|add :pw|add ''  --new-user-password=x|add u7:|add u8:p -w json|add u9:p -w fields|add u10:p -w protobuf|add u11:a:b:c".split("|")]
    s += each("user list") + [Step("user list extra"), Step("role add r-simple"), Step("role grant-permission r0 readwrite foo"), Step("role grant-permission r-simple read /p/ --prefix")]
    for line in "u1 r0|u1 nosuch|nosuch r0|u1|u2 r0 -w json|u3 r0 -w fields|u1 r0|u1 r-simple|u3 r0 -w protobuf".split("|"):
        s += [Step(f"user grant-role {line}")]
    s += each("user get u1") + each("user get u1 --detail", ["simple", "json"]) + [Step("user get nosuch"), Step("user get")]
    s += [Step(f"user revoke-role {line}") for line in ["u1 r-simple", "u1 r-simple", "nosuch r0", "u2 r0 -w json", "u1"]]
    s += [Step(f"user passwd {line} --interactive=false", stdin="pw1\n") for line in ["u1", "nosuch", "u1 -w json", "u3"]] + [Step("user passwd")]
    s += [Step(f"user delete {line}") for line in ["u9", "u10 -w json", "nosuch", ""]] + [Step("put foo 1"), Step("put other 1"), Step("user add root:rootpw")]
    return s + [Step("auth enable")] + auth_on_steps()


def auth_on_steps():
    root, user = "--user root:rootpw", "--user u1:pw1"
    s = [Step("auth status"), Step(f"{root} auth enable"), Step(f"{root} auth status -w fields")]
    for line in ["user get root", "role get root", "role get root -w json", "role list", "user list"]:
        s += [Step(f"{root} {line}")]
    s += [Step(l) for l in "get foo|put foo bar|get foo -w json|--user u1:wrong get foo|--user nosuch:x get foo|--user u3: get foo|--user '' get foo".split("|")]
    s += [Step(f"{user} {l}") for l in "put foo bar|get foo|put other x|get other|get a z|get '' --prefix|del foo|del other".split("|")]
    s += [Step("--user u1 --password pw1 put foo v"), Step("--user u1 get foo", stdin="pw1\n"), Step("--user u1 get foo", stdin=""), Step("get foo", env={"ETCDCTL_USER": "u1:pw1"})]
    for txn in ["\nget foo\n\n\n", "\nput other x\n\n\n", '\nput foo x\n\nget other\n\n', 'mod("other") > "0"\n\nget foo\n\n\n']:
        s += [Step(f"{user} txn", stdin=txn)]
    s += [Step(f"{user} watch foo", events=[f"{user} put foo w"]), Step(f"{user} watch other"), Step("watch foo")]
    for step in s[-2:]:
        step.exit_only = True  # 3.5.1's server says less about it than a later one
    for line in "user list|user get u1|user get u2|role get r0|role get r-simple|role list|auth disable|user add x:y|role add x|auth status".split("|"):
        s += [Step(f"{user} {line}")]
    s += [Step(f"{user} user passwd u1 --interactive=false", stdin="pw1\n"), Step(f"{user} member list"), Step(f"{user} endpoint status"), Step(f"{user} endpoint health")]
    s += [Step(f"{user} {l}") for l in "endpoint hashkv|alarm list|defrag|member add m --peer-urls=http://127.0.0.1:9999|lease grant 100|lease list".split("|")]
    s += [Step("endpoint health"), Step("endpoint hashkv"), Step("defrag")]
    for line in ["member list", "endpoint status", "alarm list", "lease grant 100", "lease list", f"{user} alarm disarm", f"{user} compaction 2"]:
        s.append(Step(line))
        s[-1].late = "3.5.29 and newer ask who it is"
    grant = Step(f"{root} lease grant 100", save=("lease", r"lease ([0-9a-f]+) granted"))
    s += [grant, Step(f"{root} put other x --lease={{lease}}"), Step(f"{user} lease revoke {{lease}}"), Step(f"{user} put foo v --lease={{lease}}")]
    s += [Step(f"{root} {l}") for l in "role grant-permission root read foo|role get root|role delete root|user delete root|user revoke-role root root|user delete u8".split("|")]
    s += [Step(f"{root} {l}") for l in "role get r0|role delete r0|user get u1|auth disable".split("|")]
    s += [Step(l) for l in ["get foo", "--user u1:pw1 get foo", "--user nosuch:x get foo"]]
    return s


def cluster_suite():
    s = [Step("put foo bar")]
    for word in ["status", "hashkv"]:
        s += each(f"endpoint {word}") + each(f"endpoint {word} --cluster", ["simple", "table"])
    s += [Step("--endpoints={ep1} endpoint hashkv --cluster")] + each("member list", ["simple", "fields", "table"]) + [Step("defrag --cluster")]
    s += [Step("endpoint status", save=("next", r"(?m), ([0-9a-f]+), [^,]*, [^,]*, false")), Step("move-leader {next}")]
    s += [Step("endpoint status", save=("next", r"(?m), ([0-9a-f]+), [^,]*, [^,]*, false")), Step("move-leader {next} -w json", pause=1)]
    s += [Step("move-leader dead"), Step("get foo"), Step("put foo 2"), Step("get foo --consistency=s")]
    s += [Step("member add early --peer-urls=http://127.0.0.1:62380 --learner", pause=6), Step("member list")]
    for step in s:
        step.unordered = step.any_member = True
    return s


SUITES = {
    "kv": kv_suite, "txn": txn_suite, "watch": watch_suite, "lease": lease_suite, "member": member_suite,
    "endpoint": endpoint_suite, "maintenance": maintenance_suite, "global": global_suite, "cluster": cluster_suite,
    "auth": auth_suite,
}  # fmt: skip


class Cluster:
    """Fresh servers of one program, on ports from `base` on."""

    def __init__(self, program, count, base, ctl):
        self.dir = tempfile.mkdtemp(prefix="compare-ctl-")
        self.endpoints = [f"127.0.0.1:{base + 2 * i}" for i in range(count)]
        peers = ",".join(f"m{i}=http://127.0.0.1:{base + 2 * i + 1}" for i in range(count))
        self.processes = []
        for i, endpoint in enumerate(self.endpoints):
            peer = f"http://127.0.0.1:{base + 2 * i + 1}"
            client = f"http://{endpoint}"
            words = shlex.split(program) + ["--name", f"m{i}", "--data-dir", os.path.join(self.dir, f"m{i}"),
                "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
                "--initial-advertise-peer-urls", peer, "--initial-cluster", peers, "--initial-cluster-token", "compare"]  # fmt: skip
            with open(os.path.join(self.dir, f"m{i}.log"), "wb") as log:
                self.processes.append(subprocess.Popen(words, stdout=log, stderr=log))
        deadline = time.monotonic() + 20
        for endpoint in self.endpoints:
            while not healthy(ctl, endpoint):
                if time.monotonic() > deadline or any(process.poll() is not None for process in self.processes):
                    with open(os.path.join(self.dir, "m0.log"), errors="replace") as log:
                        text = log.read()[-2000:]
                    self.stop()
                    sys.exit(f"{program} does not answer at {endpoint}:\n{text}")
                time.sleep(0.05)

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def healthy(ctl, endpoint):
    words = shlex.split(ctl) + [f"--endpoints={endpoint}", "--command-timeout=1s", "endpoint", "health"]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


class Side:
    """Runs steps with one ctl against one server."""

    def __init__(self, ctl, endpoints):
        self.ctl = shlex.split(ctl)
        self.endpoints = endpoints
        self.saved = {"ep": endpoints[0]} | {f"ep{i + 1}": e for i, e in enumerate(endpoints)}
        self.ids = {}

    def learn_ids(self):
        """Ids of cluster and members, so that they can be named alike on both sides."""
        shown = self.run_line("member list -w json")[1]
        try:
            listed = json.loads(shown)
        except ValueError:
            return
        ids = [(listed["header"]["cluster_id"], "CLUSTER")]
        by_name = sorted(listed["members"], key=lambda m: m.get("name", ""))
        ids += [(m["ID"], f"MEMBER-{m['name']}") for m in by_name if m.get("name")]
        for number, name in ids:
            self.know(number, name)

    def know(self, number, name):
        for form in (str(number), f"{number:016x}", f"{number:x}"):
            if not self.ids.get(form, "").startswith("MEMBER"):
                self.ids[form] = name

    def words(self, line):
        # An unknown placeholder stays as it is: the step that should have saved it has been reported.
        line = re.sub(r"\{(\w+)\}", lambda m: self.saved.get(m[1], m[0]), line)
        return shlex.split(line)

    def command(self, words):
        own = any(w == "--endpoints" or w.startswith("--endpoints=") for w in words)
        return self.ctl + ([] if own else ["--endpoints=" + ",".join(self.endpoints)]) + words

    def run_line(self, line):
        done = subprocess.run(self.command(self.words(line)), stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
        return done.returncode, done.stdout, done.stderr

    def run(self, step):
        time.sleep(step.pause)
        env = {k: v for k, v in os.environ.items() if not k.startswith("ETCDCTL_")} | step.env
        stdin = step.stdin.encode() if isinstance(step.stdin, str) else step.stdin
        command = self.command(self.words(step.line))
        if step.events is None:
            try:
                done = subprocess.run(command, input=stdin or b"", env=env, capture_output=True, timeout=30)
                result = done.returncode, done.stdout, done.stderr
            except subprocess.TimeoutExpired as late:
                result = "timeout", late.stdout or b"", late.stderr or b""
        else:
            result = self.run_with_events(step, command, stdin, env)
        if step.save:
            found = re.search(step.save[1], result[1].decode(errors="replace"))
            if found:
                self.saved[step.save[0]] = found[1]
                if found[1].isalnum() and len(found[1]) > 10:
                    self.know(int(found[1], 16), step.save[0].upper())
        return result

    def run_with_events(self, step, command, stdin, env):
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=err, env=env)
            if stdin:
                for line in stdin.splitlines(keepends=True):
                    process.stdin.write(line)
                    process.stdin.flush()
                    time.sleep(0.1)
            time.sleep(WATCH_SETTLE)
            for event in step.events:
                self.run_line(event)
            deadline = time.monotonic() + 10
            while step.until and process.poll() is None and time.monotonic() < deadline:
                if step.until in os.pread(out.fileno(), 1 << 20, 0):
                    break
                time.sleep(0.05)
            time.sleep(0.3)
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdin.close()
            out.seek(0), err.seek(0)
            return process.returncode, out.read(), err.read()

    def normal(self, data):
        """Output with all that differs from run to run made alike."""
        for number, name in self.ids.items():
            if number.isdigit() and len(number) > 12:
                data = data.replace(varint(int(number)), f"<{name}>".encode())
        text = data.decode(errors="backslashreplace")
        if text.startswith("NAME:\n"):
            return "usage: " + " ".join(re.findall(r"(?m)^([A-Z ]+):$", text)) + "\n"
        for number, name in sorted(self.ids.items(), key=lambda pair: -len(pair[0])):
            if len(number) > 10:
                text = re.sub(rf"(?<![0-9a-f]){number}(?![0-9a-f])", name, text)
        for at, endpoint in enumerate(self.endpoints):
            text = text.replace(endpoint, f"ENDPOINT{at}")
        lines = [normal_line(line) for line in text.splitlines(keepends=True)]
        # Tries in a row are one: how many there were is a matter of time.
        lines = [l for i, l in enumerate(lines) if not l.startswith("log: ") or i == 0 or lines[i - 1] != l]
        return "".join(lines)


def varint(number):
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


RULES = [
    (r'"(raftIndex|raftAppliedIndex|dbSize|dbSizeInUse|raftTerm)":\d+', r'"\1":N'),
    (r'"raft_term":\d+', '"raft_term":N'),
    (r'("RaftTerm"|"RaftIndex"|"RaftAppliedIndex"|"DBSize") : [1-9]\d*', r"\1 : N"),
    (r"(, [0-9.]+, )[0-9.]+ [kMG]?B, (true|false), (true|false), \d+, \d+, \d+, ", r"\1SIZE, \2, \3, TERM, INDEX, INDEX, "),
    (r"\| +[0-9.]+ [kMG]?B( \|.*?\|.*?\|) +\d+ \| +\d+ \| +\d+ \|", r"| SIZE\1 TERM | INDEX | INDEX |"),
    # A member tells the newest 3.5 that it behaves as.
    (r'("[vV]ersion" ?: ?)"3\.5\.\d+"', r'\1"3.5.N"'),
    (r"(MEMBER-m\d, |MEMBER-m\d \| +)3\.5\.\d+(?= *[,|])", r"\g<1>3.5.N"),
    (r"\d+(\.\d+)?(ms|µs|s)(?=\"|$| *\|)", "TOOK"),
    (r"attached keys\(\[(.*)\]\)", lambda m: f"attached keys([{' '.join(sorted(m[1].split()))}])"),
    (r"\| +[0-9a-f]{13,16} \| unstarted", "| ID | unstarted"),
    (r"remaining\(\d+s\)", "remaining(N)"),
    (r'"ttl":\d+', '"ttl":N'),
    (r'"TTL" : \d+', '"TTL" : N'),
    (r"lease [0-9a-f]{16} ", "lease ID "),
    (r'"(ID|id)"( ?: ?)\d{15,}', r'"\1"\2ID'),
    (r"^[0-9a-f]{16}$", "ID"),
    (r"(127\.0\.0\.1|localhost):\d{5}", "ADDRESS"),
    # etcdctl 3.4's own log.
    (r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ ", "TIME "),
    # etcdctl hides what is typed by calling stty, also where nobody types.
    (r"^stty: .*\n", ""),
    # Ids that begin with zeros are shorter, or come after spaces.
    (r"^Member +", "Member "),
    (r"[0-9a-f]{13,16}(, unstarted| added to| removed from| updated in| promoted in)", r"ID\1"),
]


def normal_line(line):
    if line.startswith('{"level":'):
        try:
            log = json.loads(line)
        except ValueError:
            return line
        kept = {k: log[k] for k in ("level", "msg", "error", "environment-variable") if k in log}
        return f"log: {kept}\n"
    for pattern, replacement in RULES:
        line = re.sub(pattern, replacement, line)
    if line.startswith(("+-", "| ")):
        line = re.sub(r"-+", "-", re.sub(r" +", " ", line))
    return line


def any_member(text):
    """The text without who it was."""
    text = re.sub(r"MEMBER-m\d|NEXT", "MEMBER", text)
    text = re.sub(r"(true|false)(, (?:true|false), TERM| \| (?:true|false) \| TERM)", r"LEADS\2", text)
    return re.sub(r"from [0-9a-f]+ to", "from MEMBER to", text)


def unordered(text):
    """The text with its lines, and the words of a list, in one order."""
    # A drawn id may take nine bytes or ten, which shows in the length before it.
    text = re.sub(r"(?s)[\x12\x1a].\x08<M>", "<MEMBER>", text)
    lines = []
    for line in text.splitlines(keepends=True):
        if line.startswith("{"):
            try:
                listed = json.loads(re.sub(r":([A-Z][-A-Za-z0-9]*)", r':"\1"', line))
            except ValueError:
                listed = {}
            if "members" in listed:
                listed["members"].sort(key=json.dumps)
                line = json.dumps(listed) + "\n"
        lines.append(re.sub(r'ETCD_INITIAL_CLUSTER="(.*)"', lambda m: ",".join(sorted(m[1].split(","))), line))
    binary = any(not c.isprintable() and c != "\n" for c in text)
    return "".join(sorted(text if binary else lines))


def shown(text):
    """Text that a terminal can take."""
    return text if text.isprintable() or "\n" in text and all(c.isprintable() or c == "\n" for c in text) else (
        "base64 " + base64.b64encode(text.encode(errors="backslashreplace")).decode() + "\n" + repr(text))


def compare(step, one, two, sides):
    """The differences of one step, as lines; empty if there are none."""
    parts = []
    if one[0] != two[0]:
        parts.append(f"  exit code: {one[0]} / {two[0]}")
    if step.exit_only:
        return parts
    for name, at in (("stdout", 1), ("stderr", 2)):
        a, b = sides[0].normal(one[at]), sides[1].normal(two[at])
        if step.any_member:
            a, b = any_member(a), any_member(b)
        if step.unordered:
            a, b = unordered(a), unordered(b)
        if a != b:
            lines = difflib.unified_diff(shown(a).splitlines(), shown(b).splitlines(), lineterm="", n=1)
            parts.append(f"  {name}:")
            parts += ["    " + line[:600] for line in list(lines)[2:40]]
    return parts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for side in "ab":
        parser.add_argument(f"--ctl-{side}", help="ctl program, may have arguments")
        parser.add_argument(f"--server-{side}", help="server program to start afresh for each suite")
        parser.add_argument(f"--endpoint-{side}", help="servers that run already, separated by commas")
    parser.add_argument("--members", type=int, default=3, help="members for the cluster suite (default 3)")
    parser.add_argument("--all-members", action="store_true", help="every suite on that many members, whoever leads")
    parser.add_argument("--suites", default=",".join(SUITES), help="which suites, separated by commas")
    parser.add_argument("--port-base", type=int, default=24100)
    parser.add_argument("--verbose", action="store_true", help="name each step")
    options = parser.parse_args()
    if not options.ctl_a or not (options.server_a or options.endpoint_a):
        parser.error("--ctl-a and one of --server-a and --endpoint-a are needed")
    ctls = [options.ctl_a, options.ctl_b or options.ctl_a]
    servers = [options.server_a, options.server_b or (None if options.endpoint_b else options.server_a)]
    given = [options.endpoint_a, options.endpoint_b or options.endpoint_a]
    total, different = 0, 0
    for name in options.suites.split(","):
        steps = SUITES[name]()
        members = options.members if name == "cluster" or options.all_members else 1
        if options.all_members:
            for step in steps:
                step.unordered = step.any_member = True
        results, sides = [], []
        for ctl, server, endpoints in zip(ctls, servers, given):
            # One after the other, on the same ports: what is hashed from addresses is the same.
            cluster = Cluster(server, members, options.port_base, ctl) if server else None
            try:
                side = Side(ctl, cluster.endpoints if cluster else endpoints.split(","))
                side.learn_ids()
                results.append([side.run(step) for step in steps])
                sides.append(side)
            finally:
                if cluster:
                    cluster.stop()
        bad, late = 0, 0
        for step, one, two in zip(steps, *results):
            difference = compare(step, one, two, sides)
            total += 1
            if difference and step.late and servers[0] != servers[1]:
                late += 1
                print(f"[{name}] as a later 3.5: {step.line}: {step.late}")
                continue
            if difference or options.verbose:
                print(f"[{name}] {'DIFFERS' if difference else 'same'}: {step.line}" + (f"   stdin {step.stdin[:120]!r}" if step.stdin else "")
                    + (f"   env {step.env}" if step.env else ""))  # fmt: skip
                print("\n".join(difference), end="\n" if difference else "")
            bad += bool(difference)
        print(f"[{name}] {len(steps) - bad - late} of {len(steps)} the same, {late} as a later 3.5", flush=True)
        different += bad
    print(f"{total - different} of {total} steps the same or as a later 3.5")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
