/* What a module's custom sections say about the interfaces it exports, by which sidetrack makes a
 * component of it. Made of the contract; not to be edited. */

#define COMPONENT_TYPE(world, bytes) \
    __asm__(".section \".custom_section.component-type:" world "\",\"\",@\n" bytes)

#define EXPORT_POLICY COMPONENT_TYPE("routing", \
        ".ascii \"\\000asm\\015\\000\\001\\000\\000\\031\\026wit-component-encoding\\004\\000\\007\\277\\007\\001A\"\n" \
        ".ascii \"\\002\\001A\\015\\001B\\020\\001@\\000\\000s\\004\\000\\006method\\001\\000\\004\\000\\004path\\001\\000\\001ks\\001@\\001\\004n\"\n" \
        ".ascii \"ames\\000\\001\\004\\000\\005query\\001\\002\\004\\000\\006header\\001\\002\\001@\\000\\000\\001\\004\\000\\004peer\\001\"\n" \
        ".ascii \"\\003\\004\\000\\007session\\001\\003\\001@\\000\\000w\\004\\000\\014session-hash\\001\\004\\001@\\000\\000\\177\"\n" \
        ".ascii \"\\004\\000\\012is-upgrade\\001\\005\\001@\\000\\000y\\004\\000\\007attempt\\001\\006\\003\\000\\036sidet\"\n" \
        ".ascii \"rack:policy/request@1.1.0\\005\\000\\001B\\013\\001y\\004\\000\\011worke\"\n" \
        ".ascii \"r-id\\003\\000\\000\\001o\\002ss\\001p\\002\\001r\\005\\002id\\001\\004names\\006weighty\\010dra\"\n" \
        ".ascii \"ining\\177\\006labels\\003\\004\\000\\006worker\\003\\000\\004\\001ky\\001r\\003\\006status{\"\n" \
        ".ascii \"\\013retry-after\\006\\004texts\\004\\000\\007refusal\\003\\000\\007\\001q\\003\\006work\"\n" \
        ".ascii \"er\\001\\001\\000\\005defer\\000\\000\\006refuse\\001\\010\\000\\004\\000\\010decision\\003\\000\\011\\003\\000\\034\"\n" \
        ".ascii \"sidetrack:policy/types@1.1.0\\005\\001\\002\\003\\000\\001\\011worke\"\n" \
        ".ascii \"r-id\\001B\\016\\002\\003\\002\\001\\002\\004\\000\\011worker-id\\003\\000\\000\\001m\\004\\005error\\004war\"\n" \
        ".ascii \"n\\004info\\005debug\\004\\000\\005level\\003\\000\\002\\001k\\001\\001@\\001\\003sids\\000\\004\\004\\000\\015s\"\n" \
        ".ascii \"ession-owner\\001\\005\\001@\\000\\000w\\004\\000\\012random-u64\\001\\006\\004\\000\\003now\"\n" \
        ".ascii \"\\001\\006\\001@\\002\\005level\\003\\004texts\\001\\000\\004\\000\\003log\\001\\007\\001@\\001\\004texts\\001\\000\\004\"\n" \
        ".ascii \"\\000\\007explain\\001\\010\\003\\000\\033sidetrack:policy/host@1.1.\"\n" \
        ".ascii \"0\\005\\003\\001B\\012\\001p}\\001k\\000\\001@\\001\\003keys\\000\\001\\004\\000\\003get\\001\\002\\001@\\002\\003keys\\005v\"\n" \
        ".ascii \"alue\\000\\000\\177\\004\\000\\003set\\001\\003\\001@\\001\\003keys\\001\\000\\004\\000\\006delete\\001\\004\\001@\\002\\003\"\n" \
        ".ascii \"keys\\006numberx\\000x\\004\\000\\003add\\001\\005\\003\\000\\034sidetrack:polic\"\n" \
        ".ascii \"y/store@1.1.0\\005\\004\\002\\003\\000\\001\\006worker\\002\\003\\000\\001\\010decision\\001\"\n" \
        ".ascii \"B\\015\\002\\003\\002\\001\\005\\004\\000\\006worker\\003\\000\\000\\002\\003\\002\\001\\006\\004\\000\\010decision\\003\\000\\002\\001j\"\n" \
        ".ascii \"\\000\\001s\\001@\\001\\004jsons\\000\\004\\004\\000\\011configure\\001\\005\\001p\\001\\001@\\001\\007worke\"\n" \
        ".ascii \"rs\\006\\001\\000\\004\\000\\013set-workers\\001\\007\\001py\\001@\\001\\005loads\\010\\000\\003\\004\\000\\007b\"\n" \
        ".ascii \"alance\\001\\011\\004\\000\\035sidetrack:policy/policy@1.1.0\"\n" \
        ".ascii \"\\005\\007\\004\\000\\036sidetrack:policy/routing@1.1.0\\004\\000\\013\\015\\001\"\n" \
        ".ascii \"\\000\\007routing\\003\\000\\000\\000/\\011producers\\001\\014processed-by\\001\\015\"\n" \
        ".ascii \"wit-component\\0070.258.3\"\n")

#define EXPORT_SESSIONS COMPONENT_TYPE("routing-sessions", \
        ".ascii \"\\000asm\\015\\000\\001\\000\\000\\031\\026wit-component-encoding\\004\\000\\007\\341\\002\\001A\"\n" \
        ".ascii \"\\002\\001A\\005\\001B\\013\\001y\\004\\000\\011worker-id\\003\\000\\000\\001o\\002ss\\001p\\002\\001r\\005\\002id\\001\\004\"\n" \
        ".ascii \"names\\006weighty\\010draining\\177\\006labels\\003\\004\\000\\006worker\"\n" \
        ".ascii \"\\003\\000\\004\\001ky\\001r\\003\\006status{\\013retry-after\\006\\004texts\\004\\000\\007r\"\n" \
        ".ascii \"efusal\\003\\000\\007\\001q\\003\\006worker\\001\\001\\000\\005defer\\000\\000\\006refuse\\001\\010\\000\"\n" \
        ".ascii \"\\004\\000\\010decision\\003\\000\\011\\003\\000\\034sidetrack:policy/types@\"\n" \
        ".ascii \"1.1.0\\005\\000\\002\\003\\000\\000\\010decision\\001B\\005\\002\\003\\002\\001\\001\\004\\000\\010decision\\003\"\n" \
        ".ascii \"\\000\\000\\001py\\001@\\002\\003sids\\005loads\\002\\000\\001\\004\\000\\004find\\001\\003\\004\\000\\037sidetr\"\n" \
        ".ascii \"ack:policy/sessions@1.1.0\\005\\002\\004\\000'sidetrack:\"\n" \
        ".ascii \"policy/routing-sessions@1.1.0\\004\\000\\013\\026\\001\\000\\020rout\"\n" \
        ".ascii \"ing-sessions\\003\\000\\000\\000/\\011producers\\001\\014processed-b\"\n" \
        ".ascii \"y\\001\\015wit-component\\0070.258.3\"\n")

#define EXPORT_STATE COMPONENT_TYPE("routing-state", \
        ".ascii \"\\000asm\\015\\000\\001\\000\\000\\031\\026wit-component-encoding\\004\\000\\007\\201\\001\\001A\"\n" \
        ".ascii \"\\002\\001A\\002\\001B\\006\\001p}\\001@\\000\\000\\000\\004\\000\\004save\\001\\001\\001j\\000\\001s\\001@\\001\\005state\\000\\000\"\n" \
        ".ascii \"\\002\\004\\000\\007restore\\001\\003\\004\\000\\034sidetrack:policy/state@1\"\n" \
        ".ascii \".1.0\\005\\000\\004\\000$sidetrack:policy/routing-state@\"\n" \
        ".ascii \"1.1.0\\004\\000\\013\\023\\001\\000\\015routing-state\\003\\000\\000\\000/\\011producers\"\n" \
        ".ascii \"\\001\\014processed-by\\001\\015wit-component\\0070.258.3\"\n")

#define EXPORT_SCHEMA COMPONENT_TYPE("routing-schema", \
        ".ascii \"\\000asm\\015\\000\\001\\000\\000\\031\\026wit-component-encoding\\004\\000\\007{\\001A\\002\"\n" \
        ".ascii \"\\001A\\002\\001B\\004\\001@\\000\\000s\\004\\000\\007current\\001\\000\\001@\\001\\004forms\\000\\177\\004\\000\\005rea\"\n" \
        ".ascii \"ds\\001\\001\\004\\000\\035sidetrack:policy/schema@1.1.0\\005\\000\\004\\000\"\n" \
        ".ascii \"%sidetrack:policy/routing-schema@1.1.0\\004\\000\"\n" \
        ".ascii \"\\013\\024\\001\\000\\016routing-schema\\003\\000\\000\\000/\\011producers\\001\\014proc\"\n" \
        ".ascii \"essed-by\\001\\015wit-component\\0070.258.3\"\n")

#define EXPORT_EVENTS COMPONENT_TYPE("routing-events", \
        ".ascii \"\\000asm\\015\\000\\001\\000\\000\\031\\026wit-component-encoding\\004\\000\\007\\231\\003\\001A\"\n" \
        ".ascii \"\\002\\001A\\005\\001B\\013\\001y\\004\\000\\011worker-id\\003\\000\\000\\001o\\002ss\\001p\\002\\001r\\005\\002id\\001\\004\"\n" \
        ".ascii \"names\\006weighty\\010draining\\177\\006labels\\003\\004\\000\\006worker\"\n" \
        ".ascii \"\\003\\000\\004\\001ky\\001r\\003\\006status{\\013retry-after\\006\\004texts\\004\\000\\007r\"\n" \
        ".ascii \"efusal\\003\\000\\007\\001q\\003\\006worker\\001\\001\\000\\005defer\\000\\000\\006refuse\\001\\010\\000\"\n" \
        ".ascii \"\\004\\000\\010decision\\003\\000\\011\\003\\000\\034sidetrack:policy/types@\"\n" \
        ".ascii \"1.1.0\\005\\000\\002\\003\\000\\000\\011worker-id\\001B\\007\\002\\003\\002\\001\\001\\004\\000\\011worker-i\"\n" \
        ".ascii \"d\\003\\000\\000\\001@\\002\\003sids\\006worker\\001\\001\\000\\004\\000\\016session-opened\\001\"\n" \
        ".ascii \"\\002\\004\\000\\016session-closed\\001\\002\\001@\\001\\006worker\\001\\001\\000\\004\\000\\015work\"\n" \
        ".ascii \"er-failed\\001\\003\\004\\000\\035sidetrack:policy/events@1.\"\n" \
        ".ascii \"1.0\\005\\002\\004\\000%sidetrack:policy/routing-events@\"\n" \
        ".ascii \"1.1.0\\004\\000\\013\\024\\001\\000\\016routing-events\\003\\000\\000\\000/\\011producer\"\n" \
        ".ascii \"s\\001\\014processed-by\\001\\015wit-component\\0070.258.3\"\n")
