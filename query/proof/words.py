"""The words of the built-in texts: kinds of things, actions and places that go together, written for this purpose."""

import re

_KINDS = """
person: man | woman | man | woman | boy | girl | person | young man | young woman | little boy | little girl | child |
    man | woman | smiling woman | old man | old woman | bearded man | toddler | baby | teenager | student | teacher |
    chef | waiter | farmer | nurse | doctor | firefighter | police officer | soldier | sailor | pilot | carpenter |
    mechanic | builder | painter | photographer | musician | singer | dancer | drummer | guitarist | clown | magician |
    acrobat | athlete | runner | swimmer | cyclist | skateboarder | surfer | climber | hiker | skier | boxer | golfer |
    coach | fisherman | hunter | cowboy | shepherd | gardener | baker | butcher | barista | bartender | scientist |
    priest | monk | nun | businessman | office worker | street vendor | taxi driver | tourist | bride | groom |
    grandmother | grandfather | blond woman | bald man | person in a wheelchair
group: two men | two women | two boys | two girls | three friends | a young couple | an elderly couple | a family of
    four | a group of children | a group of people | a crowd of people | a football team | a school class | a marching
    band | several cyclists | a few tourists | some teenagers | four musicians | many runners | a mother and her
    daughter | a father and his son | twin sisters | a couple with a baby | commuters | protesters | wedding guests |
    construction workers | soldiers | a choir | spectators | a row of dancers | a man and a woman | a boy and a girl | a
    child and a dog | a woman and her dog | a man and his horse | an orchestra | a rowing crew
dog: dog | dog | brown dog | black dog | white dog | puppy | black and white dog | small dog | large dog | tan dog |
    golden retriever | german shepherd | poodle | bulldog | beagle | dachshund | greyhound | sheepdog | husky |
    dalmatian | terrier | labrador
cat: cat | kitten | black cat | gray cat | tabby cat | siamese cat | persian cat | orange cat | white cat | fluffy cat
farm: horse | cow | sheep | goat | pig | lamb | calf | foal | pony | donkey | bull | piglet | brown horse | white horse
    | herd of cows | flock of sheep | llama | alpaca | mule | ox | camel | rabbit | hen | rooster | chicken
wild: elephant | giraffe | zebra | bear | polar bear | lion | tiger | monkey | deer | wolf | fox | kangaroo | panda |
    koala | leopard | cheetah | rhino | hippo | brown bear | gorilla | baboon | chimpanzee | baby elephant | herd of
    zebras | orangutan | moose | elk | antelope | gazelle | hyena | bison | water buffalo | wild boar | lemur | sloth |
    hedgehog | porcupine | squirrel | chipmunk | beaver | otter | badger | skunk | raccoon | hare | meerkat | lioness |
    bear cub
bird: bird | bird | duck | seagull | parrot | owl | eagle | flamingo | penguin | peacock | swan | hawk | falcon | pigeon
    | dove | crow | raven | magpie | sparrow | robin | swallow | woodpecker | kingfisher | hummingbird | macaw | toucan
    | turkey | chicken | rooster | hen | duckling | goose | heron | stork | crane | pelican | ostrich | blue jay
sea: fish | shark | dolphin | whale | sea turtle | jellyfish | octopus | goldfish | starfish | crab | lobster | seal |
    sea lion | clownfish | seahorse | shrimp | coral | orca | walrus
bug: butterfly | bee | spider | dragonfly | ladybug | grasshopper | beetle | snail | fly | ant | moth | caterpillar |
    praying mantis | bumblebee | wasp | cricket | tarantula | scorpion
reptile: lizard | snake | frog | turtle | crocodile | alligator | tree frog | iguana | chameleon | gecko | tortoise |
    toad | salamander | python | cobra
road: car | bus | truck | motorcycle | bicycle | van | taxi | police car | sports car | convertible | pickup truck |
    double-decker bus | school bus | fire engine | ambulance | garbage truck | tow truck | dump truck | delivery truck |
    trailer | limousine | minivan | vintage car | race car | tram | trolleybus | scooter | moped | mountain bike |
    rickshaw | horse-drawn carriage | stroller
machine: tractor | bulldozer | excavator | forklift | crane | go-kart | golf cart | quad bike | tank | snowplow |
    snowmobile | lawn mower | cannon
train: train | passenger train | steam train | freight train | bullet train | subway train | old locomotive | red train
    | yellow tram
boat: boat | sailboat | small boat | rowing boat | canoe | kayak | yacht | speedboat | ferry | cruise ship | container
    ship | fishing boat | tugboat | lifeboat | gondola | submarine | aircraft carrier | houseboat | jet ski | raft |
    schooner | catamaran
aircraft: airplane | jet | helicopter | passenger jet | biplane | jet fighter | hot air balloon | glider | airship |
    kite | rocket | space shuttle | propeller plane
food: pizza | hamburger | hot dog | sandwich | burrito | taco | salad | bowl of soup | omelette | pancake | waffle |
    croissant | bagel | pretzel | doughnut | muffin | cupcake | birthday cake | wedding cake | cheesecake | chocolate
    cake | apple pie | cookie | ice cream cone | loaf of bread | slice of toast | plate of pasta | bowl of rice | bowl
    of noodles | plate of sushi | roast chicken | steak | grilled fish | sausage | fried egg | baked potato | bowl of
    cereal | fruit salad | cheese platter | lasagna | curry | stir fry | stew | dumpling | ramen | french fries |
    popcorn | plate of vegetables | slice of pizza | plate of food
produce: apple | banana | orange | lemon | lime | pineapple | strawberry | raspberry | blueberry | cherry | peach | plum
    | pear | mango | kiwi | pomegranate | coconut | watermelon | melon | bunch of grapes | avocado | tomato | cucumber |
    eggplant | bell pepper | chili pepper | carrot | potato | onion | broccoli | cauliflower | cabbage | lettuce |
    asparagus | mushroom | pumpkin | ear of corn
drink: cup of coffee | cup of tea | espresso | glass of water | glass of milk | glass of wine | bottle of wine | pint of
    beer | cocktail | glass of orange juice | smoothie | mug of hot chocolate | champagne flute | teapot | water bottle
    | can of soda | pitcher of lemonade | milkshake
electronics: laptop | computer | cell phone | keyboard | television | remote control | camera | computer mouse | monitor
    | desktop computer | headphones | game controller | printer | radio | loudspeaker | microphone | record player |
    typewriter
kitchenware: refrigerator | stove | oven | microwave | sink | pan | pot | kettle | toaster | dishwasher | bowl | plate |
    cutting board | knife | fork | wooden spoon | spatula | frying pan | coffee maker | blender | teapot
bathware: toilet | bathtub | sink | mirror | shower | shower curtain | towel | toothbrush | toilet paper | soap
    dispenser | hair dryer | razor | comb
homeware: lamp | pillow | vase of flowers | clock | picture frame | mirror | rug | curtains | candle | bookcase |
    television | fireplace | chandelier | window | plant | chair | coffee table | blanket | fan | radiator
office: laptop | computer | keyboard | notebook | pencil | book | stack of papers | cup of coffee | telephone | lamp |
    monitor | scissors | envelope | printer | coffee mug
tool: hammer | screwdriver | saw | chainsaw | drill | axe | shovel | rake | ladder | rope | nail | screw | paintbrush |
    broom | bucket | wheelbarrow | pair of scissors | flashlight | chain
carried: umbrella | backpack | bag | suitcase | handbag | camera | cell phone | balloon | flag | sign | book | newspaper
    | guitar | surfboard | skateboard | baby | bottle | ball | stick | basket | microphone | wallet | teddy bear | kite
    | bouquet of flowers | shopping bag | fishing rod | water bottle
toy: teddy bear | doll | toy train | toy car | ball | balloon | kite | swing | slide | jigsaw puzzle | chess board |
    playing cards | yo-yo | rocking horse | building blocks | stuffed animal | seesaw | bubbles
trinket: clock | wall clock | wristwatch | hourglass | sundial | lantern | light bulb | candle | umbrella | sunglasses |
    key | globe | map | compass | binoculars | telescope | microscope | barrel | wooden crate | cardboard box |
    birdhouse | spider web | anchor | sword | shield | crown | diamond ring | necklace | trophy | medal | helmet | scale
    | lipstick | perfume bottle | toothbrush | bow | bell | envelope | feather | mask
street_item: stop sign | street sign | traffic light | fire hydrant | parking meter | bench | mailbox | street lamp |
    trash can | billboard | gas pump | pay phone | vending machine | fountain | statue | manhole cover | cash machine |
    turnstile | phone booth
furniture: chair | rocking chair | armchair | sofa | stool | bench | dining table | coffee table | desk | bookcase |
    wardrobe | chest of drawers | bed | bunk bed | couch | filing cabinet | shelf | rug | curtain | window blind |
    folding chair
clothing: shirt | t-shirt | sweater | hoodie | jacket | coat | raincoat | suit | dress | skirt | apron | uniform | vest
    | scarf | hat | baseball cap | beanie | cowboy hat | swimsuit | bikini | wetsuit | life vest | bow tie | mask |
    costume
footwear: sandals | sneakers | high heels | hiking boots | rubber boots | roller skates | ice skates | shorts | jeans |
    overalls | pajamas | goggles | gloves | glasses | socks | leggings | swimming trunks
instrument: guitar | electric guitar | bass guitar | violin | cello | harp | banjo | ukulele | piano | grand piano |
    organ | accordion | harmonica | flute | clarinet | saxophone | trumpet | trombone | tuba | french horn | bagpipes |
    drum | drum kit
plant: rose | tulip | sunflower | daisy | lily | orchid | daffodil | poppy | water lily | lotus flower | cherry blossom
    | dandelion | cactus | fern | ivy | bamboo | palm tree | oak tree | pine tree | willow tree | maple leaf | olive
    tree | pine cone | clover | bouquet
building: house | church | castle | tower | bridge | skyscraper | clock tower | lighthouse | barn | temple | cottage |
    log cabin | farmhouse | windmill | palace | cathedral | mosque | pagoda | apartment block | office building | hotel
    | hospital | school | library | museum | theater | stadium | factory | warehouse | power plant | wind turbine |
    water tower | suspension bridge | dam | pier | triumphal arch | fountain | statue | pyramid | greenhouse | igloo |
    treehouse | shed | gas station | train station | airport | carousel | ferris wheel | roller coaster | totem pole
street: on a street | on a busy street | on the sidewalk | on a city street | in front of a building | next to a brick
    wall | on a road | at a bus stop | at a crosswalk | in a parking lot | in an alley | in front of a store | at an
    outdoor market | on a bridge | in the city | at an intersection | in a town square | on a bench | near a fence | on
    the side of the road | at a construction site | on a staircase | outside a cafe | in front of a crowd | under a
    bridge
nature: in a field | in the grass | in the woods | in a forest | on a mountain | on a rock | near a river | by a lake |
    on a trail | on a hill | in a park | in a meadow | near a waterfall | on a cliff | in the desert | on a dirt road |
    under a tree | in a canyon | at a campsite | on a log | in a cave | in a swamp | in a rice field | near a volcano |
    in a valley
water: on the beach | in the water | in the ocean | at the beach | in a pool | in a lake | in a river | on a dock | on
    the shore | in shallow water | at the edge of the water | in the waves | on a lake | in a harbor | in a fountain |
    near the rocks | on a pier | in a creek
snow: in the snow | on a snowy hill | down a ski slope | on a snowy mountain | through deep snow | on a snow covered
    street | on a frozen lake | in the mountains | near a ski lift | in a snowy forest | on a glacier
grass: in the grass | in a field | in a pasture | behind a fence | on a farm | in a barn | on a grassy hill | near a
    tree | on a dirt road | in a pen | in a stable | by a stream | in a green field | in a meadow
zoo: at the zoo | in the grass | in the wild | near a tree | in an enclosure | in the water | on a rock | in a field |
    in the woods | on the savanna | near a watering hole | behind a fence | in the jungle | in the snow
perch: on a branch | on the water | in the sky | on the beach | in a tree | on a fence | on a rock | in a pond | in the
    grass | on a wire | in a cage | over the ocean | on a roof | on a bird feeder | in a nest
undersea: underwater | on a coral reef | in an aquarium | in the ocean | near the sea floor | in a tank | in the sea
leaf: on a leaf | on a flower | on a branch | on a rock | on a wall | in the grass | on a finger | on a log | in a web |
    on the ground
sky: in the sky | in a blue sky | on the runway | at the airport | above the clouds | over the mountains | over the
    water | taking off | at an air show | over a city | in a field
rails: on the tracks | at a train station | on a bridge | at a platform | through the countryside | in a tunnel | next
    to a platform | in the city | in a rail yard
sail: in the water | on a lake | in the harbor | on the ocean | on a river | at a dock | on the beach | near the shore |
    at sea | under a bridge | in a canal
table: on a table | on a plate | on a wooden table | on a white plate | in a bowl | on a counter | in a kitchen | in a
    restaurant | in a basket | on a cutting board | at a market | on a paper plate | in a pan | in a box | on a picnic
    table | on a grill
surface: on a table | on a desk | on the floor | on a shelf | on a bed | on a wooden table | on the wall | in a room |
    on a counter | on a couch | in a store | in a box | in a garage | on the ground | in a shop window | in a museum
home: on a couch | in a living room | on a bed | in a kitchen | at a table | on the floor | in a bedroom | in a room |
    in a chair | on a sofa | by the window | in an office | in a bathroom | at a desk | in a hallway | in an attic
venue: in a restaurant | in a bar | in a classroom | on a stage | in a store | in a library | at a party | in an airport
    | on the subway | on a bus | in a museum | in a church | in a hospital | at a conference | in a hotel lobby | in a
    theater | in a gym | in a laboratory | in a workshop | in a factory | in a supermarket | in a bakery | at a wedding
    | in a barber shop | in a nightclub
colour: red | orange | yellow | green | blue | purple | pink | brown | black | white | gray | golden | silver |
    turquoise | beige | maroon | navy blue | light blue | dark green | bright yellow | black and white | red and white |
    blue and yellow | green and brown | multicolored | colorful | striped | spotted | checkered | plaid
material: wooden | metal | glass | plastic | leather | stone | marble | concrete | brick | ceramic | porcelain | paper |
    cardboard | woolen | cotton | silk | velvet | denim | rubber | bamboo | copper | bronze | brass | iron | steel |
    straw | wicker | crystal | ice | knitted
quality: small | large | old | young | big | tall | wet | empty | dirty | broken | rusty | shiny | new | tiny | huge |
    dusty | full | round | long | square | antique | modern | abandoned | crowded | ornate | fancy | beautiful | strange
    | half-eaten | decorated | painted | folded | fluffy | wooden | hairy | lonely | happy | playful | toy
when: at sunset | at sunrise | at night | at dusk | at noon | in the early morning | in winter | in autumn | in spring |
    in summer | in the rain | in thick fog | during a storm | in heavy snow | on a sunny day | on a cloudy day | on a
    windy day | under a clear blue sky | under dark clouds | in bright sunlight | under a full moon | under a rainbow |
    by candlelight | in the shade | during a parade | at a birthday party | at a wedding
weather: lightning | thunderstorm | rainbow | tornado | blizzard | snowstorm | morning fog | mist | sunset | sunrise |
    starry sky | northern lights | full moon | storm clouds | heavy rain | flood | sandstorm | forest fire | ocean waves
    | high tide | autumn leaves
landscape: beach | mountain | lake | city skyline | river | forest | desert | waterfall | city street | field | sea |
    coastline | cliff | valley | canyon | glacier | swamp | jungle | rainforest | pine forest | meadow | wheat field |
    vineyard | island | volcano | cave | village | harbor | highway | railway track | country road | alley | market |
    playground | swimming pool | golf course | ski resort | coral reef | hill
room: kitchen | living room | bedroom | bathroom | dining room | classroom | office | library | restaurant | bar |
    bakery | supermarket | clothing store | bookstore | toy shop | gym | theater | cinema | hospital room | laboratory |
    workshop | garage | hallway | staircase | attic | hotel lobby | airport terminal | subway station | barber shop |
    home office
sport: soccer | basketball | baseball | tennis | table tennis | badminton | volleyball | beach volleyball | rugby |
    cricket | field hockey | ice hockey | golf | bowling | archery | fencing | boxing | wrestling | karate | gymnastics
    | weightlifting | figure skating | speed skating | skiing | snowboarding | ski jumping | surfing | windsurfing |
    water polo | diving | rowing | canoeing | sailing | cycling | motocross | horse racing | show jumping | rock
    climbing | skateboarding | marathon | hurdles | long jump | pole vault | american football | rodeo | bungee jumping
    | paragliding
street_act: walking | riding a bicycle | standing | sitting | riding a motorcycle | waiting | crossing the street |
    walking a dog | pushing a stroller | playing the {instrument} | taking a picture | talking on a cell phone | selling
    {produce+} | looking at a phone | riding a scooter | holding an umbrella | eating a {food} | carrying a {carried} |
    holding a {carried} | leaning against a wall | smoking a cigarette | reading a newspaper | painting a wall | dancing
    | marching in a parade | pulling a suitcase | riding a skateboard | doing a trick on a skateboard | looking at a
    {road} | getting into a {road} | washing a {road} | repairing a {road} | sweeping | holding a sign | walking past a
    {building} | looking at a {street_item}
nature_act: walking | running | hiking | sitting | standing | riding a horse | riding a mountain bike | climbing a rock
    | jumping | playing with a {dog} | looking through binoculars | climbing a tree | sitting around a campfire |
    setting up a tent | flying a kite | picking {produce+} | picking flowers | chopping wood | throwing a frisbee |
    hiking with a backpack | taking a picture | running with a {dog} | having a picnic | riding an elephant | feeding a
    {farm} | petting a {farm} | looking at a {wild} | planting a {plant} | digging a hole | crossing a stream | looking
    at the view
water_act: swimming | surfing | playing | riding a wave | jumping into the water | walking | running | splashing |
    standing | fishing | rowing a boat | paddling a canoe | paddling a kayak | diving | building a sandcastle | lying on
    a towel | playing with a ball | wading | windsurfing | water skiing | holding a surfboard | jumping off a rock |
    throwing a ball | sailing | snorkeling | catching a fish | playing with a {dog}
snow_act: skiing | snowboarding | sledding | walking | playing | jumping | throwing a snowball | building a snowman |
    shoveling snow | hiking | cross-country skiing | falling | riding a snowmobile | ice skating | standing | climbing
    an icy wall | pulling a sled | ice fishing
home_act: sitting | sleeping | reading a book | playing a video game | eating a {food} | watching television | using a
    laptop | holding a {cat} | holding a baby | talking on the phone | drinking a {drink} | cooking | cutting a
    {produce} | cutting a cake | brushing teeth | playing the {instrument} | opening a present | blowing out candles |
    washing dishes | playing with a {cat} | playing with a {toy} | getting dressed | writing | drawing | knitting |
    ironing a {clothing} | sweeping the floor | baking bread | putting on {footwear} | looking in a mirror | lying down
    | taking a selfie
venue_act: sitting | singing | playing the {instrument} | dancing | eating | talking | giving a speech | drinking a
    {drink} | eating a {food} | standing | laughing | reading | waiting | posing for a picture | using a laptop |
    shopping | serving food | playing chess | shaking hands | clapping | getting a haircut | painting a picture |
    holding a microphone | looking at a {electronics} | wearing a costume | praying | preparing a {food} | lifting
    weights | working | looking at a {trinket}
sport_act: playing soccer | playing tennis | playing baseball | playing basketball | swinging a bat | hitting a tennis
    ball | kicking a soccer ball | throwing a baseball | catching a ball | running with the football | shooting a basket
    | playing volleyball | doing a trick on a skateboard | jumping a ramp on a bicycle | racing a motorcycle | riding a
    bull | jumping over a hurdle | swinging a golf club | playing hockey | playing rugby | boxing | wrestling | doing
    gymnastics | playing cricket | fencing | practicing karate | climbing a rock wall | bowling | playing table tennis |
    running a race | pole vaulting | riding a horse over a fence | playing frisbee | diving off a board | racing cars |
    lifting a trophy | doing a flip | rowing in a race | playing badminton | playing lacrosse | shooting an arrow
arena: on a field | on a court | on a tennis court | in a stadium | in front of a crowd | at a skate park | on a track |
    in a gym | during a game | on a ramp | on a dirt track | in a race | at a competition | in a park | on an ice rink |
    in the air | in an arena
kid_act: playing | smiling | laughing | jumping | running | swinging on a swing | sliding down a slide | blowing bubbles
    | playing with a {toy} | holding a {toy} | climbing a ladder | crying | making a funny face | eating an ice cream
    cone | splashing in a puddle | sticking out a tongue | riding a tricycle | jumping on a trampoline | hanging from
    monkey bars | crawling | being carried by a man | painting | playing in the leaves
kid: boy | girl | child | little girl | little boy | toddler | baby | young girl | young boy | kid | smiling child |
    small child | teenager | boy in a {colour} shirt | girl in a {colour} dress | girl with pigtails | child in a
    {clothing}
play: on a playground | in a park | in a pool | on a swing | in a yard | on the grass | on a trampoline | in a garden |
    in the sprinkler | at a party | on the sand | in a classroom | in a backyard | on a bed | at an amusement park
dog_act: running | jumping | standing | playing | swimming | lying down | catching a frisbee | carrying a stick in its
    mouth | chasing a ball | shaking off water | running with a ball in its mouth | sitting | fighting with another dog
    | walking on a leash | jumping over a hurdle | digging | sleeping | licking its nose | looking at the camera |
    wearing a {clothing} | leaping over a log | running through shallow water | chewing on a bone | rolling | standing
    on its hind legs | sniffing the ground | pulling a sled | barking | chasing a {bird} | being petted
dog_place: in the grass | on the beach | in the snow | in the water | in a field | on a dirt road | in a yard | in the
    sand | in the woods | on a couch | in a park | on a bed | near a fence | in a car | through a puddle | on the
    sidewalk | in a muddy field | in a pool | on an agility course
cat_act: sleeping | sitting | lying | looking out of a window | playing with a toy | hiding | licking its paw | looking
    at the camera | stretching | drinking from a sink | yawning | sitting next to a laptop | wearing a {clothing} |
    looking in a mirror | curled up | eating from a bowl | staring at a {bird}
cat_place: on a bed | on a couch | on a chair | on a windowsill | in a sink | on a table | on the floor | in a box | on
    a keyboard | on a car | under a table | in a suitcase | on a shelf | in a basket | in a garden | on a blanket | in a
    shoe
graze: standing | grazing | walking | eating grass | running | lying down | drinking water | looking at the camera |
    sleeping | galloping | being led by a man | pulling a cart | being fed | with its young
roam: standing | walking | eating | lying down | drinking water | sleeping | climbing a tree | swimming | playing |
    looking at the camera | with its baby | running | yawning | fighting | eating leaves | hunting
perching: standing | sitting | flying | swimming | perched | eating | with spread wings | landing | walking | feeding
    its chicks | drinking | taking off
style: oil painting | watercolor | pencil sketch | charcoal drawing | ink drawing | woodcut | mosaic | stained glass
    window | graffiti | mural | poster | cartoon | comic strip | pixel art | clay sculpture | bronze statue | tattoo |
    logo | children's drawing | line drawing | silhouette | postage stamp
photo: photo | picture | image | close-up | black and white photo | blurry photo | aerial view | macro photo | portrait
    | long exposure | low angle shot | side view | vintage photograph | snapshot | night shot | silhouette | studio shot
mood: minimalist | moody | cozy | romantic | spooky | peaceful | dramatic | funny | rustic | vintage | futuristic |
    festive | elegant | messy | retro | bokeh | high contrast | pastel | shallow depth of field | wide angle | motion
    blur | reflection
count: two | three | four | five | six | seven | a dozen | several | many | a pair of | a group of | a row of | a pile
    of
text: exit | sale | open | stop | welcome | danger | no parking | free coffee | for rent | happy birthday
animal: {dog} | {cat} | {farm} | {wild} | {wild} | {bird} | {bird} | {sea} | {bug} | {reptile}
vehicle: {road} | {road} | {train} | {boat} | {aircraft} | {machine}
item: {electronics} | {kitchenware} | {homeware} | {tool} | {toy} | {trinket} | {street_item} | {furniture} |
    {instrument} | {clothing} | {drink} | {carried} | {food} | {produce}
thing: {animal} | {animal} | {vehicle} | {item} | {item} | {item} | {plant} | {building} | {person}
scene: {landscape} | {landscape} | {room} | {building} | {weather}
look: {colour} | {quality} | {quality} | {material}
act: {street_act} {street} | {street_act} {street} | {street_act} {street} | {nature_act} {nature} | {nature_act}
    {nature} | {water_act} {water} | {water_act} {water} | {snow_act} {snow} | {home_act} {home} | {home_act} {home} |
    {venue_act} {venue} | {sport_act} {arena} | {sport_act} {arena}
pose: {street_act} | {street_act} | {nature_act} | {water_act} | {snow_act} | {home_act} | {venue_act} | {sport_act} |
    {sport_act}
life: {dog} {dog_act} {dog_place} | {dog} {dog_act} {dog_place} | {cat} {cat_act} {cat_place} | {farm} {graze} {grass} |
    {wild} {roam} {zoo} | {wild} {roam} {zoo} | {bird} {perching} {perch} | {sea} {undersea} | {bug} {leaf} | {reptile}
    {leaf}
traffic: {road} {street} | {road} {street} | {road} parked {street} | {road} driving {street} | {train} {rails} | {boat}
    {sail} | {aircraft} {sky} | {machine} {nature}
"""

_ENTRIES = (" ".join(kind.split()).partition(": ") for kind in re.split(r"\n(?=\w)", _KINDS.strip()))

WORDS = {name: entries.split(" | ") for name, _, entries in _ENTRIES}
"""The entries of each kind, common ones first. `{bird}` in an entry is one of the kind `bird`, `{bird+}` its plural."""

IRREGULAR = {
    "man": "men", "woman": "women", "child": "children", "mouse": "mice", "goose": "geese", "calf": "calves",
    "wolf": "wolves", "knife": "knives", "shelf": "shelves", "leaf": "leaves", "loaf": "loaves", "hoof": "hooves",
    "person": "people", "ox": "oxen", "scarf": "scarves",
} | {
    word: word
    for word in (
        "sheep deer bison moose elk trout salmon squid shrimp fish goldfish clownfish coral broccoli asparagus corn "
        "lettuce garlic cauliflower headphones sunglasses binoculars pliers scissors cards eggs potatoes fries popcorn "
        "bamboo ivy moss lavender reindeer bagpipes maracas dice soap offspring ramen curry guacamole aircraft"
    ).split()
}  # fmt: skip
"""Plurals that do not end in -s, by the last word of the singular."""
