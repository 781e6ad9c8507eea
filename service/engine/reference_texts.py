"""Texts about something else: what nobody asks a wildlife archive for.

The relevance cut-off (`index.relevance`) is calibrated by what these find in an archive. They
are everyday things, trades, institutions and ideas; nothing that lives, grows or is eaten, and
no place where wildlife is. Which they are matters little: words drawn at random from all of
WordNet's nouns, a fifth of them animals and plants, give nearly the same cut-off
(docs/decisions/0011-relevance-cut-off.md). To change them is to change every cut-off.
"""

from __future__ import annotations

_TEXTS = """
accordion; airport; algebra; ambulance; armchair; arithmetic; atom; auction; ballet; bank
account; barometer; baseball game; bathtub; battery; bedroom; bell tower; billiards; birthday
party; blanket; blueprint; bookshelf; bottle opener; brass band; brick wall; broadcast; budget;
calculator; calendar; candle; car park; cash register; castle; ceiling; cello; chair; chapel;
chimney; choir; city skyline; clarinet; clock; coal mine; comedy; committee; concert; concrete;
contract; copper wire; court of law; credit card; curtain; dance floor; democracy; dentist;
diamond ring; dictionary; dishwasher; doctor; drawing; dress; economics; education; electricity;
elevator; emperor; engineer; escalator; evening news; exhibition; eyeglasses; fashion show; fax
machine; film star; fire engine; flag; football team; fountain pen; friendship; furnace;
furniture; gas station; geometry; goalkeeper; gold medal; grammar; grandmother; guitar; gun;
hammer; handbag; happiness; headline; heating bill; helicopter; highway; hip hop; honesty;
hospital bed; ice rink; income; inflation; insurance; invention; iron gate; jealousy; jewellery;
journalist; judge; kettle; keyboard; knife; knitting; ladder; lamp; laptop; laundry; lawyer;
lecture; lift shaft; light bulb; limousine; lipstick; locomotive; logic; loudspeaker; luggage;
magician; magnet; mathematics; meeting; memory; microphone; microscope; military parade; mirror;
monument; moon landing; motorcycle; motorway; music; necklace; nuclear power; nurse; opera;
orchestra; paint brush; palace; parachute; parliament; pavement; pencil; philosophy; photograph;
piano; pillow; pistol; plastic bag; plumber; poetry; politics; post office; poverty; power
station; president; prison; prize; profit; propeller; psychology; puzzle; pyramid; radio;
railway station; receipt; recording studio; refrigerator; religion; revolution; rifle; rocket;
roof; rugby; salary; satellite; saucepan; scaffolding; school; screwdriver; sculpture; shipyard;
shirt; shop window; shower; silver; sink; ski lift; skyscraper; slot machine; sock; software;
soldier; spacecraft; spoon; staircase; statue; steel; stethoscope; strike; student; suburb;
subway; sunglasses; surgery; swimming pool; sword; synagogue; table tennis; taxi; teacher;
telephone; telescope; temple; tennis court; theory; thermometer; ticket; timetable; tool box;
toothbrush; towel; toy; trade union; traffic jam; train; tram; treaty; trial; trumpet; tunnel;
tyre; umbrella; university; vacuum cleaner; victory; video game; volleyball; vote; wallet; war;
washing machine; wedding; wheel; wheelchair; window; witness; wrestling
"""

REFERENCE_TEXTS: tuple[str, ...] = tuple(" ".join(_TEXTS.split()).split("; "))
"""256 short English texts, each given once."""
