"""Sentences of general English, written for this package: the texts to which `domain` compares those of a recipe.

Each of the twelve kinds has as many, so that no subject and no register is what counts as general.
"""

ENCYCLOPEDIA = """\
The river rises in the northern hills and flows south for about two hundred kilometres before it reaches the sea.
A violin has four strings, which are usually tuned in perfect fifths.
The town was founded in the twelfth century and received its market rights a hundred years later.
Bees live in colonies that consist of one queen, several hundred drones and many thousands of workers.
Limestone is a sedimentary rock that is made mostly of the shells of marine animals.
She was elected to parliament in 1924 and served as a minister until the end of the war.
The bridge carries two lanes of traffic and a footpath, and it replaced a ferry that had run since 1840.
Coffee is grown in more than seventy countries, most of them near the equator.
In chess, the king may not move to a square that is attacked by an opposing piece.
The language is spoken by about three million people on both sides of the border.
A vaccine trains the immune system to recognise a disease without causing it.
The painting shows a fishing village at low tide and is now in the national gallery."""

NEWS = """\
The government said on Tuesday that it would raise the minimum wage by four percent next year.
Two people were injured when a bus collided with a lorry on the motorway near the airport.
Shares in the company fell sharply after it warned that profits would be lower than expected.
The home team won three to one and moved up to second place in the league.
Heavy rain has flooded several villages, and hundreds of residents have left their homes.
The court rejected the appeal and ordered the former director to pay a fine.
Scientists have found signs of water below the surface of the planet, a new study says.
Voters go to the polls on Sunday in an election that is expected to be close.
The central bank left interest rates unchanged, as most analysts had predicted.
Police are looking for witnesses to a robbery at a jewellery shop in the city centre.
The museum will close for two years while its roof and its heating are renewed.
Leaders of the two countries met for talks on trade and on the security of their borders."""

FICTION = """\
He closed the door behind him and stood for a long time in the dark hallway, listening.
"You should have told me," she said, and turned her face to the window.
The old man had lived alone on the island for so many years that he talked to the gulls.
Nobody in the village remembered when the bell had last been rung.
She read the letter twice, folded it carefully and put it back into her coat.
It was the kind of summer in which the days seemed to have no end.
The horse stopped at the edge of the wood and would not go a step further.
"I never liked that house," said my brother, "not even when we were children."
Somewhere below them, in the fog, a ship sounded its horn.
He had promised to come back before the snow, and now the first flakes were falling.
The girl laughed so loudly that everyone on the platform looked at her.
There was nothing in the room but a bed, a chair and a map of a country that no longer existed."""

CONVERSATION = """\
Hi, how was your weekend?
I don't know, maybe we could just stay at home tonight.
That sounds great, what time should I come over?
Sorry, I didn't hear what you said, it's really loud in here.
No, thanks, I've already had two cups.
Well, it depends on who you ask, doesn't it?
Wait, are you telling me that he never called you back?
I was going to, but then my sister came and we talked for hours.
Could you pass me the salt, please?
Oh, come on, it can't be that bad.
Yes, of course, take as long as you need.
Let me know when you get there, okay?"""

REVIEWS = """\
The acting is wonderful, but the story loses its way in the second half.
Great value for the money, and it arrived a day earlier than promised.
One of the most boring films that I have seen in years.
The food was delicious and the waiters were friendly, although we had to wait a little.
The battery lasts for two days, which is more than I expected from such a small phone.
I wanted to like this book, but the characters never came to life for me.
A warm and funny comedy that the whole family can enjoy.
Do not buy these shoes, the soles came off after three weeks.
The room was clean and quiet, and the view of the harbour was lovely.
The sequel repeats every joke of the original without any of its charm.
It does what it says, and it is easy to install.
Beautifully filmed, slow, sad, and well worth your time."""

INSTRUCTIONS = """\
Preheat the oven to 180 degrees and grease a small baking tin.
Turn off the power at the mains before you remove the cover.
Add the onions and fry them over a low heat until they are soft.
Press and hold the button for five seconds until the light begins to blink.
Keep this medicine out of the reach of children.
Go straight on for two blocks, then turn left at the church.
Fill in the form, sign it at the bottom and send it back to us in the envelope.
Cut the paper along the dotted line and fold both halves inwards.
Water the plant once a week, and a little more often in summer.
Open the settings, choose your account and click on the link to change your password.
Stretch for ten minutes before you start to run.
Let the paint dry overnight before you apply the second coat."""

QUESTIONS = """\
What is the capital of Australia?
How many bones are there in the human body?
Who wrote the first novel that was printed in this country?
Why do leaves change their colour in autumn?
When did the first train run between the two cities?
Which of the following animals lays eggs?
How far is it from here to the nearest station?
What does this word mean, and where does it come from?
Is it safe to eat mushrooms that grow in my garden?
How long does it take to learn to play the piano?
Who was the president of the republic during the crisis?
Where can I see the northern lights at this time of the year?"""

REQUESTS = """\
I would like to book a table for four people at eight o'clock tomorrow.
My card was declined, although there is enough money in my account.
Please remind me to call the dentist on Monday morning.
I ordered a lamp two weeks ago and it still has not arrived.
Play some quiet music in the kitchen.
Can you tell me how to change the address on my invoice?
I want to cancel my subscription and get the money back for this month.
What will the weather be like in the mountains at the weekend?
Set an alarm for half past six.
The application closes by itself whenever I try to upload a photo.
Is there a flight to Lisbon on Friday that is not too expensive?
I have forgotten my password and the link in your message does not work."""

CAPTIONS = """\
A man in a red jacket is riding a bicycle down a wet street.
Two dogs are playing with a ball on the beach.
A woman is slicing a tomato on a wooden board.
Children sit in a circle on the floor of a classroom.
A white cat sleeps on the arm of a sofa.
Several people are waiting at a bus stop in the rain.
A young boy jumps into a swimming pool.
A plate of pasta stands on a table next to a glass of water.
An old car is parked in front of a brick house.
A group of hikers is crossing a narrow bridge.
Snow covers the roofs of a small mountain village.
A girl with a guitar is singing into a microphone."""

POSTS = """\
just finished my last exam, I can't believe it's finally over!!
Does anyone else think that the new layout looks terrible?
Happy birthday to the best mum in the world, love you so much
I'm so tired of people who say they'll come and then don't show up...
lol that's exactly what my boss said yesterday
Can't wait for the concert tonight, see you all there!
This is the worst internet connection I have ever had, thanks for nothing.
Thank you, that really made my day :)
Honestly, why is everybody so angry about this game?
Good morning everyone, time for coffee and a bit of sunshine.
not gonna lie, I cried at the end of that episode
You're wrong, and you know it. Read the article again."""

LETTERS = """\
Thank you for your letter of 3 May, which we have read with interest.
Please find attached the minutes of our last meeting and the agenda of the next.
We are pleased to offer you the position of assistant in our sales department.
The parties agree that this contract may be ended by either of them with three months' notice.
Sales in the third quarter rose by six percent, mainly because of higher demand in Asia.
The invoice is due within thirty days of the date of delivery.
I am writing to apply for the post that was advertised on your website.
The committee will meet in room 12 on Thursday at two o'clock.
The tenant must keep the garden in good order and may not put up a fence without permission.
I regret to inform you that your application has not been successful this time.
Could you send me the figures by the end of the week, so that I can finish the report?
All employees must wear a badge and sign the visitors' book when they bring a guest."""

SCIENCE = """\
The patients were divided into two groups, one of which received the new drug for six weeks.
If the temperature rises, the molecules move faster and the pressure in the vessel grows.
We measured the growth of the plants at three levels of light and found no difference.
A function is continuous if small changes of its argument lead to small changes of its value.
The results suggest that sleep has an effect on how well new words are remembered.
The algorithm sorts the list by comparing pairs of neighbouring elements.
Blood flows from the right side of the heart to the lungs, where it takes up oxygen.
The survey was answered by 1,200 households, a third of which had no car.
Light of a shorter wavelength is scattered more strongly, which is why the sky looks blue.
The model explains about half of the variance in the prices of houses.
Most of these settlements were abandoned when the climate became drier.
The theory has been criticised because it cannot be tested by an experiment."""

GENERAL_TEXTS = tuple(
    text
    for kind in (
        ENCYCLOPEDIA, NEWS, FICTION, CONVERSATION, REVIEWS, INSTRUCTIONS, QUESTIONS, REQUESTS, CAPTIONS, POSTS, LETTERS,
        SCIENCE,
    )
    for text in kind.splitlines()
)  # fmt: skip
