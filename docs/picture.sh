#!/bin/bash
# Makes the picture in the README from a run's report: docs/picture.sh RUN_FOLDER. Needs Chromium and `make env`.
set -euo pipefail
REPORT="$1/report.html"
HERE="$(cd "$(dirname "$0")" && pwd)"
WORK="$(mktemp -d)"
trap 'rm -rf "$WORK"' EXIT

# The same page with a few of its parts, side by side.
STYLE='body{max-width:none;padding:0 20px}
header,nav,.skip,details,.pick,.small-maps,.map-box figcaption,#verdict>p,section:not(#verdict,#accuracy,#map,#neighbors){display:none}
main{display:grid;grid-template-columns:570px 1fr;gap:0 28px;padding-top:20px}
section{border:0!important;padding:12px 0}
#verdict{padding:16px 20px;border:2px solid!important;align-self:start}
#map,#neighbors{grid-column:2}
#map{grid-row:1/3}
#neighbors{grid-column:1/3;display:grid;grid-template-columns:1fr 1fr;gap:0 28px}
#neighbors h2,#neighbors p{grid-column:1/3}
#neighbors .strip:nth-of-type(n+5){display:none}
#neighbors .strip{flex-wrap:nowrap;gap:6px}
.figures div:last-child{display:none}
.strip figure{width:72px}
.strip .thumb{--s:60px!important}'
{ cat "$REPORT"; printf '<style>%s</style>' "$STYLE"; } > "$WORK/report.html"
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$WORK/profile" \
    --window-size=1240,985 --virtual-time-budget=5000 --screenshot="$WORK/report.png" "file://$WORK/report.html"
"$HERE/../.venv/bin/python" -c "
import sys
from PIL import Image
Image.open(sys.argv[1]).convert('RGB').quantize(256).save(sys.argv[2], optimize=True)
" "$WORK/report.png" "$HERE/report.png"
