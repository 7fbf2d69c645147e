"""Small files as the annotation tools write them, hand-written after their formats."""

import json
from typing import Any

EAF = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" DATE="2024-05-01T10:00:00+00:00" FORMAT="3.0" VERSION="3.0">
    <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
        <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/data/sound.wav" MIME_TYPE="audio/x-wav"
            RELATIVE_MEDIA_URL="./sound.wav"/>
        <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/data/kitchen%201.mp4" MIME_TYPE="video/mp4"
            RELATIVE_MEDIA_URL="./kitchen%201.mp4"/>
    </HEADER>
    <TIME_ORDER>
        <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="1000"/>
        <TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="2500"/>
        <TIME_SLOT TIME_SLOT_ID="ts3" TIME_VALUE="4000"/>
        <TIME_SLOT TIME_SLOT_ID="ts4" TIME_VALUE="5250"/>
        <TIME_SLOT TIME_SLOT_ID="ts5"/>
    </TIME_ORDER>
    <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="actions">
        <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
            <ANNOTATION_VALUE> pour </ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
        <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts4" TIME_SLOT_REF2="ts5">
            <ANNOTATION_VALUE>pour</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    </TIER>
    <TIER LINGUISTIC_TYPE_REF="default-lt" TIER_ID="stir">
        <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a3" TIME_SLOT_REF1="ts3" TIME_SLOT_REF2="ts4">
            <ANNOTATION_VALUE></ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    </TIER>
    <TIER LINGUISTIC_TYPE_REF="notes" PARENT_REF="actions" TIER_ID="notes">
        <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a4" ANNOTATION_REF="a1">
            <ANNOTATION_VALUE>slowly</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
    </TIER>
</ANNOTATION_DOCUMENT>
"""

BORIS: dict[str, Any] = {
    "project_format_version": "7.0",
    "behaviors_conf": {
        "0": {"code": "eat", "type": "State event"},
        "1": {"code": "bark", "type": "Point event"},
        "2": {"code": "rest", "type": "State event with coding map"},
    },
    "observations": {
        "morning": {
            "type": "MEDIA",
            "file": {"1": ["/home/me/a.mp4", "/home/me/b.mp4"], "2": ["/home/me/other_side.mp4"]},
            "media_info": {"length": {"/home/me/a.mp4": 60.0, "/home/me/b.mp4": 30.0}},
            "time offset": 5.0,
            "events": [
                [15.0, "Rex", "eat", "", "", 250],
                [16.0, "Ada", "eat", "", "", 275],
                [18.5, "Rex", "eat", "", "", 337],
                [20.0, "Ada", "eat", "", "", 375],
                [21.0, "Rex", "bark", "", "", 400],
                [70.0, "Rex", "rest", "", "", 1500],
                [80.0, "Rex", "rest", "", "", 1750],
                [85.0, "Rex", "eat", "", "", 2000],
            ],
        },
        "field": {"type": "LIVE", "file": [], "events": []},
    },
}

BORIS_AGGREGATED = """Observation id,Observation date,Description,Observation type,Source,Time offset (s),Subject,\
Behavior,Behavioral category,Behavior type,Start (s),Stop (s),Duration (s),Media file name
morning,2024-05-01 10:00:00,,Media file(s),player #1:a.mp4,0,Rex,eat,,STATE,10.0,13.5,3.5,a.mp4
morning,2024-05-01 10:00:00,,Media file(s),player #1:a.mp4,0,Rex,bark,,POINT,16.0,16.0,0.0,a.mp4
"""

BORIS_TABULAR = """Observation id\tmorning
Media file(s)

Time\tMedia file path\tTotal length\tFPS\tSubject\tBehavior\tBehavioral category\tComment\tStatus
10.0\t/home/me/a.mp4\t60\t25\tRex\teat\t\t\tSTART
11.0\t/home/me/a.mp4\t60\t25\tAda\teat\t\t\tSTART
13.5\t/home/me/a.mp4\t60\t25\tRex\teat\t\t\tSTOP
15.0\t/home/me/a.mp4\t60\t25\tAda\teat\t\t\tSTOP
16.0\t/home/me/a.mp4\t60\t25\tRex\tbark\t\t\tPOINT
"""

VIA: dict[str, Any] = {
    "project": {"pid": "__VIA_PROJECT_ID__", "data_format_version": "3.1.1"},
    "config": {},
    "attribute": {
        "1": {"aname": "action", "anchor_id": "FILE1_Z2_XY0", "type": 4, "options": {"0": "break egg", "1": "pour"}},
        "2": {"aname": "box", "anchor_id": "FILE1_Z1_XY1", "type": 1, "options": {}},
    },
    "file": {"7": {"fid": "7", "fname": "eggs.mp4", "type": 4, "loc": 1, "src": ""}},
    "view": {"1": {"fid_list": ["7"]}},
    "metadata": {
        "a": {"vid": "1", "flg": 0, "z": [2.0, 6.5], "xy": [], "av": {"1": "0"}},
        "b": {"vid": "1", "flg": 0, "z": [8.25, 9.0], "xy": [], "av": {"1": "1"}},
        "c": {"vid": "1", "flg": 0, "z": [3.0], "xy": [2, 10, 10, 20, 20], "av": {"2": "egg"}},
        "d": {"vid": "1", "flg": 0, "z": [10.0, 11.0], "xy": [], "av": {}},
    },
}

LABEL_STUDIO: list[dict[str, Any]] = [
    {
        "id": 1,
        "data": {"video": "/data/upload/3/0a1b2c3d-run.mp4"},
        "annotations": [
            {
                "id": 11,
                "was_cancelled": False,
                "result": [
                    {
                        "type": "timelinelabels",
                        "from_name": "tl",
                        "to_name": "video",
                        "value": {"ranges": [{"start": 25, "end": 72}], "timelinelabels": ["run"]},
                    },
                    {"type": "choices", "value": {"choices": ["day"]}},
                ],
            },
            {"id": 12, "was_cancelled": True, "result": [{"value": {"start": 0, "end": 9, "labels": ["no"]}}]},
        ],
    },
    {
        "id": 2,
        "data": {"video": "https://example.org/clips/walk.mp4?token=1"},
        "annotations": [{"result": [{"type": "labels", "value": {"start": 1.5, "end": 4, "labels": ["walk"]}}]}],
    },
]

LABEL_STUDIO_SMALL: list[dict[str, Any]] = [
    {
        "id": 1,
        "video": "/data/upload/3/0a1b2c3d-run.mp4",
        "annotator": 1,
        "tl": [{"ranges": [{"start": 25, "end": 72}], "timelinelabels": ["run"]}],
    }
]

ACTIVITYNET: dict[str, Any] = {
    "database": {
        "a.mp4": {
            "subset": "training",
            "group": "home",
            "fps": 25.0,
            "file": "clips/a.mp4",
            "duration": 20.0,
            "annotations": [{"label": "eat", "segment": [1.5, 4.0]}, {"label": "rest", "segment": [3.0, 9.0]}],
        },
        "b.mp4": {"subset": "validation", "group": "yard", "annotations": []},
    }
}

CSV = """video,start,end,label,group,subset
clips/a.mp4,1.5,4.0,eat,home,training
clips/a.mp4,0:03,0:00:09.0,rest,home,training
b,,,,yard,validation
"""

FILES: dict[str, str] = {
    "kitchen.eaf": EAF,
    "project.boris": json.dumps(BORIS),
    "aggregated.csv": BORIS_AGGREGATED,
    "tabular.tsv": BORIS_TABULAR,
    "via.json": json.dumps(VIA),
    "tasks.json": json.dumps(LABEL_STUDIO),
    "small.json": json.dumps(LABEL_STUDIO_SMALL),
    "activitynet.json": json.dumps(ACTIVITYNET),
    "labels.csv": CSV,
}
EXPECTED: dict[str, list[tuple[str, str, float, float]]] = {
    "kitchen.eaf": [
        ("kitchen 1", "pour", 1.0, 2.5),
        ("kitchen 1", "slowly", 1.0, 2.5),
        ("kitchen 1", "stir", 4.0, 5.25),
    ],
    "project.boris": [("a", "eat", 10.0, 13.5), ("a", "eat", 11.0, 15.0), ("b", "rest", 5.0, 15.0)],
    "aggregated.csv": [("a", "eat", 10.0, 13.5)],
    "tabular.tsv": [("a", "eat", 10.0, 13.5), ("a", "eat", 11.0, 15.0)],
    "via.json": [("eggs", "break egg", 2.0, 6.5), ("eggs", "pour", 8.25, 9.0)],
    "tasks.json": [("run", "run", 1.0, 3.0), ("walk", "walk", 1.5, 4.0)],
    "small.json": [("run", "run", 1.0, 3.0)],
    "activitynet.json": [("a", "eat", 1.5, 4.0), ("a", "rest", 3.0, 9.0)],
    "labels.csv": [("a", "eat", 1.5, 4.0), ("a", "rest", 3.0, 9.0)],
}
