"""The style sheet of the HTML report: one column, system fonts, light and dark, fit for print."""

STYLE = """
:root { color-scheme: light dark; --paper:#fff; --ink:#1b1f24; --soft:#59636e; --line:#d9dee3; --panel:#f6f8fa;
  --accent:#0969da; --c0:#0969da; --c1:#d97706; --c2:#1a7f5a; --c3:#b4489b; --c4:#7a6ff0; --c5:#8a8f98; }
@media (prefers-color-scheme: dark) { :root { --paper:#0f1318; --ink:#e4e8ed; --soft:#9aa4af; --line:#2b323a;
  --panel:#171c22; --accent:#58a6ff; --c0:#58a6ff; --c1:#f0a33a; --c2:#3fb98a; --c3:#dd7bc6; --c4:#9d94ff;
  --c5:#9aa4af; } }
* { box-sizing: border-box; }
body { margin:0 auto; max-width:1240px; padding:40px 28px 64px; background:var(--paper); color:var(--ink);
  font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif; }
h1 { font-size:27px; line-height:1.25; margin:0 0 6px; letter-spacing:-.01em; }
h2 { font-size:18px; margin:44px 0 12px; padding-bottom:6px; border-bottom:1px solid var(--line); }
h3 { font-size:14px; margin:0 0 6px; font-weight:600; }
p { margin:0 0 12px; } .lead { color:var(--soft); max-width:74ch; font-size:16px; }
.note { color:var(--soft); font-size:13.5px; max-width:84ch; }
.tiles { display:grid; grid-template-columns:repeat(auto-fit,minmax(170px,1fr)); gap:12px; margin:22px 0 0; }
.tile { background:var(--panel); border:1px solid var(--line); border-radius:8px; padding:12px 16px; }
.tile b { display:block; font-size:26px; font-weight:650; line-height:1.2; font-variant-numeric:tabular-nums; }
.tile span { display:block; font-size:13.5px; } .tile small { color:var(--soft); font-size:12.5px; }
.facts { display:grid; grid-template-columns:max-content 1fr; gap:3px 20px; margin:0; font-size:14px; }
.facts dt { color:var(--soft); } .facts dd { margin:0; overflow-wrap:anywhere; }
.scroll { overflow-x:auto; margin-bottom:14px; }
table { border-collapse:collapse; width:100%; font-size:14px; font-variant-numeric:tabular-nums; }
th,td { padding:5px 10px; text-align:right; white-space:nowrap; border-bottom:1px solid var(--line); }
th { font-weight:600; color:var(--soft); font-size:13px; }
thead tr:last-child th { border-bottom:1.5px solid var(--soft); }
th:first-child,td:first-child { text-align:left; padding-left:2px; }
th.group { text-align:center; color:var(--ink); } td.mean { background:var(--panel); }
td.best { font-weight:700; } td.first,th.first { border-left:1px solid var(--line); }
tfoot td { font-weight:600; border-bottom:0; }
td.words { text-align:left; white-space:normal; color:var(--soft); }
.charts { display:grid; grid-template-columns:repeat(auto-fit,minmax(min(400px,100%),1fr)); gap:22px; }
figure { margin:0; min-width:0; overflow-x:auto; } svg { display:block; width:100%; height:auto; }
svg.wide { min-width:600px; }
svg text { fill:var(--soft); font-size:12px; } svg text.strong { fill:var(--ink); font-weight:600; }
.grid { stroke:var(--line); } .axis { stroke:var(--soft); } .bar { fill:var(--c0); opacity:.5; }
.curve { fill:none; stroke-width:1.8; stroke-linejoin:round; stroke-linecap:round; } .tick { stroke-width:3; }
.c0{stroke:var(--c0)} .c1{stroke:var(--c1)} .c2{stroke:var(--c2)} .c3{stroke:var(--c3)} .c4{stroke:var(--c4)}
.c5{stroke:var(--c5)}
.legend { display:flex; flex-wrap:wrap; gap:2px 18px; font-size:13px; color:var(--soft); margin:0 0 6px; }
.legend span::before { content:""; display:inline-block; width:12px; height:12px; border-radius:3px;
  margin-right:6px; vertical-align:-1px; background:var(--k); }
.k0{--k:var(--c0)} .k1{--k:var(--c1)} .k2{--k:var(--c2)} .k3{--k:var(--c3)} .k4{--k:var(--c4)} .k5{--k:var(--c5)}
.gallery { display:grid; gap:14px; overflow-x:auto;
  grid-template-columns:repeat(auto-fill,minmax(min(var(--cell),max(100%,var(--cell)/2)),1fr)); }
.gallery img { display:block; width:100%; height:auto; border-radius:5px; background:var(--panel); }
.gallery figcaption { font-size:12.5px; color:var(--soft); margin-top:3px; overflow-wrap:anywhere; }
pre { background:var(--panel); border:1px solid var(--line); border-radius:6px; padding:10px 14px; overflow-x:auto;
  font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace; margin:0 0 12px; }
code { font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace; }
details { margin:10px 0; } summary { cursor:pointer; color:var(--accent); margin-bottom:8px; }
footer { margin-top:48px; color:var(--soft); font-size:12.5px; }
@media print { body { max-width:none; padding:0; } h2 { break-after:avoid; } figure,tr { break-inside:avoid; } }
"""
